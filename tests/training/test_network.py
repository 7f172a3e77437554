"""Collectives and flows: equal to each other, and to the model of own clusters, where nothing contends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout import cluster
from tapeout.training import TrainingError, collectives, fleet_of, network
from tapeout.training.collectives import Group, Network

CARDS = fleet_of("H100:512").cards[0]
QUIET = network.fabric_of(CARDS)
LINKS = CARDS.network


@pytest.mark.parametrize("group", [4, 8, 16, 64])
def test_flows_equal_the_analytic_form_without_contention(group):
    size = 1e9
    flows = network.all_to_all(QUIET, network.groups_of(QUIET, group), size)
    assert network.simulate(QUIET, flows).seconds == pytest.approx(
        collectives.time_s(LINKS, "all_to_all", size, Group(group)), rel=0.02
    )


def test_a_ring_in_order_runs_at_the_network_card():
    found = network.simulate(QUIET, network.ring(QUIET, range(QUIET.cards), 1e9))
    assert found.seconds == pytest.approx(1e9 / QUIET.nic_bytes_per_s, rel=0.02)


@settings(max_examples=8)
@given(seed=st.integers(0, 50), group=st.sampled_from([16, 32]))
def test_contention_only_slows(seed, group):
    size = 1e8
    times = []
    for over in (1.0, 2.0, 4.0):
        fabric = network.fabric_of(CARDS, oversubscription=over, nodes_per_leaf=8, spines=8)
        groups = network.groups_of(fabric, group, scattered=True, seed=seed)
        times.append(network.simulate(fabric, network.all_to_all(fabric, groups, size)).seconds)
    assert times == sorted(times)
    assert times[0] >= size * (group - 8) / group / QUIET.nic_bytes_per_s * 0.999


def test_one_rail_stands_for_all():
    fabric = network.fabric_of(CARDS, nodes_per_leaf=8, spines=8)
    flows = network.all_to_all(fabric, network.groups_of(fabric, 32, scattered=True), 1e8)
    one, count = network._of_one_rail(fabric, flows)
    assert count == len(flows.source) and (one.rail <= 0).all()
    assert network._ended(fabric, network._taken(one, one.rail == 0)).seconds == pytest.approx(
        network._ended(fabric, network._taken(flows, flows.rail >= 0)).seconds, rel=0.02
    )


def test_a_failed_uplink_slows_and_the_last_cannot_fail():
    times = []
    for failed in (0, 4):
        fabric = network.fabric_of(CARDS, nodes_per_leaf=8, spines=8, failed=failed)
        groups = network.groups_of(fabric, 64, scattered=True, seed=1)
        times.append(network.simulate(fabric, network.all_to_all(fabric, groups, 1e8)).seconds)
    assert times[1] > times[0]
    with pytest.raises(TrainingError, match="8 failed uplinks of 8 leave none; at most 7 may fail"):
        network.fabric_of(CARDS, spines=8, failed=8)


def test_fair_rates_fill_the_narrowest_link():
    links = np.array([[0, -1], [0, 1], [1, -1]])
    rates = network._fair(links, np.array([10.0, 100.0]))
    assert rates.tolist() == [5.0, 5.0, 95.0]


@pytest.mark.parametrize("operation", ["all_gather", "reduce_scatter", "all_reduce"])
def test_bytes_on_own_clusters_are_those_of_their_own_model(operation):
    """Large messages on the reference clusters: the same bytes at the same levels, so the same time at peak rates."""
    rail = cluster.load("rail10k")
    bulk = max(protocol.efficiency for protocol in rail.protocols)
    size = 1 << 34
    ours = collectives.time_s(Network(rail, bulk, bulk), operation, size, Group(64))
    theirs = cluster.collective_time(rail, operation, size, range(64)).time_ps * 1e-12
    assert ours == pytest.approx(theirs, rel=0.02)


def test_groups_that_span_nodes_pool_their_network_cards():
    """Sixteen neighbours on two nodes send a share each; strided ones have a network card to themselves."""
    size = 1e9
    neighbours = collectives.time_s(LINKS, "all_reduce", size, Group(16))
    alone = collectives.time_s(LINKS, "all_reduce", size, Group(2, 8))
    assert neighbours < alone
    assert [(level.name, n) for level, n in collectives.spans(CARDS.topology, Group(16))] == [
        ("node", 8),
        ("network", 2),
    ]


def test_a_torus_works_on_all_its_dimensions_at_once():
    """The reference torus: the same bytes and steps as the model of own clusters."""
    torus = cluster.load("torus4x4x4")
    bulk = max(protocol.efficiency for protocol in torus.protocols)
    for operation in ("all_gather", "reduce_scatter", "all_reduce", "all_to_all"):
        ours = collectives.time_s(Network(torus, bulk, bulk), operation, 1 << 34, Group(64))
        theirs = cluster.collective_time(torus, operation, 1 << 34, range(64)).time_ps * 1e-12
        assert ours == pytest.approx(theirs, rel=0.02)


def test_collectives_in_a_node_are_the_measured_ones():
    """All-reduce and all-gather of eight cards, microseconds of aiconfigurator-core 0.12, within a quarter."""
    measured = {
        ("A100", "all_reduce"): ((4, 77), (16, 216), (64, 595), (256, 2182)),
        ("A100", "all_gather"): ((4, 48), (16, 135), (64, 352), (256, 1217)),
        ("H100", "all_reduce"): ((4, 50), (16, 122), (64, 324), (256, 1092)),
        ("H100", "all_gather"): ((4, 33), (16, 68), (64, 209), (256, 733)),
    }
    for (chip, operation), rows in measured.items():
        links = fleet_of(f"{chip}:8").cards[0].network
        for size, micro in rows:
            assert collectives.time_s(links, operation, size * 2.0**20, Group(8)) * 1e6 == pytest.approx(
                micro, rel=0.25
            )
