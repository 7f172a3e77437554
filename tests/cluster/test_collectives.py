"""Cost of collectives: laws, figures worked out by hand, and the fabric's limits."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapeout import cluster as clusters
from tapeout.chip import tiny
from tapeout.cluster import OPERATIONS, Cluster, Level, Protocol, collective_time
from tapeout.errors import ChipError

GB = 1_000_000_000
PLAIN = (Protocol(name="plain", base_ns=0, step_ns=0, efficiency=1.0),)


def fabric(kind="switch", size=8, **more):
    return Level(name=kind, size=size, fabric=kind, bytes_per_s=100 * GB, latency_ns=1_000, **more)


def flat(**more):
    return Cluster(name="flat", levels=(fabric(**more),), protocols=PLAIN)


operations = st.sampled_from([name for name in OPERATIONS if name not in ("send", "recv")])
names = st.sampled_from(list(clusters.REFERENCE_CLUSTERS))
shipped = st.sampled_from(list(clusters.shipped()))


@given(shipped, operations, st.integers(0, 1 << 32), st.integers(2, 64))
def test_more_bytes_never_take_less_time_and_the_link_is_never_beaten(name, operation, size_bytes, count):
    cluster = clusters.load(name)
    places = range(min(count, cluster.place_count or count))
    once, twice = (collective_time(cluster, operation, n * size_bytes, places) for n in (1, 2))
    assert once.time_ps <= twice.time_ps
    assert once.time_ps >= once.least_ps
    rate = max(level.bytes_per_s for level in cluster.levels)
    share = (len(places) - 1) / len(places)
    if operation in ("all_gather", "reduce_scatter", "all_to_all"):
        assert once.time_ps >= size_bytes * share / rate * 1e12 * 0.999


@given(names, st.integers(1, 1 << 30))
def test_large_messages_take_twice_as_long_for_twice_the_bytes(name, megabytes):
    cluster = clusters.load(name)
    size = (1 << 34) + megabytes
    once, twice = (collective_time(cluster, "all_reduce", n * size, range(8)).time_ps for n in (1, 2))
    assert twice == pytest.approx(2 * once, rel=0.05)


@pytest.mark.parametrize(
    ("cluster", "operation", "want_us"),
    [
        # 80 MB on 8 chips at 100 GB/s: seven eighths leave each chip in 700 µs, and a step takes 1 µs.
        (flat(), "all_gather", 700 + 1),
        (flat(), "reduce_scatter", 700 + 1),
        (flat(), "all_reduce", 2 * (700 + 1)),
        (flat(), "all_to_all", 700 + 1),
        (flat(reduces_in_switch=True), "all_reduce", 800 + 2),
        (flat(oversubscription=2), "all_gather", 1400 + 1),
        (flat(kind="ring"), "all_gather", 700 + 7),
        (flat(kind="torus", shape=(2, 4)), "all_gather", 400 + 300 + 1 + 3),
        (flat(), "broadcast", 800 + 3),
        (flat(), "barrier", 2),
    ],
)
def test_one_level_by_hand(cluster, operation, want_us):
    size = 0 if operation == "barrier" else 80_000_000
    assert collective_time(cluster, operation, size, range(8)).time_ps == want_us * 1_000_000


def test_two_levels_by_hand():
    outer = Level(name="rails", size=0, fabric="switch", bytes_per_s=10 * GB, latency_ns=5_000)
    cluster = Cluster(name="two", levels=(fabric(size=4), outer), protocols=PLAIN)
    # 80 MB on 2 x 4 chips: inwards 60 MB at 100 GB/s, then 20 MB among two boards at 10 GB/s there and back, outwards.
    got = collective_time(cluster, "all_reduce", 80_000_000, range(8))
    assert got.time_ps == (600 + 1 + 2 * (1000 + 5) + 600 + 1) * 1_000_000
    assert got.bound == "rate of level rails"
    # One chip of each board: only the rails; three chips on two boards: no even split, so only the rails too.
    assert collective_time(cluster, "all_gather", 80_000_000, (0, 4)).time_ps == (4000 + 5) * 1_000_000
    uneven = collective_time(cluster, "all_gather", 90_000_000, (0, 1, 4))
    assert uneven.time_ps == (6000 + 5) * 1_000_000


def test_small_messages_are_bound_by_latency():
    board = clusters.load("board8")
    times = {collective_time(board, "all_reduce", size, range(8)).time_ps for size in (0, 4, 64)}
    assert max(times) - min(times) < 1000
    assert collective_time(board, "all_reduce", 4, range(8)).bound == "latency"


def test_a_chip_without_links_cannot_be_joined():
    with pytest.raises(ChipError) as caught:
        clusters.check_links(tiny, 2)
    assert str(caught.value) == (
        "chip 'tiny' has no links (links.link_count=0), so 2 of them cannot run one program; "
        "describe links, or name a cluster with --cluster"
    )
    clusters.check_links(tiny, 1)


def test_the_slowest_chip_sets_the_pace_of_a_cluster_nobody_described():
    implied = clusters.of_links([(900 * GB, 700), (200 * GB, 900)])
    assert implied.place_count is None
    assert (implied.levels[0].bytes_per_s, implied.levels[0].latency_ns) == (200 * GB, 900)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("based_on = 'board9'", "mine.toml: unknown cluster 'board9'; did you mean 'board8'? Known: board8, rack72, "),
        (
            "based_on = 'board8'\nnam = 'x'",
            "mine.toml: cluster: unknown field 'nam'; did you mean 'name'? Known: name,",
        ),
        ("name = 'x'", "mine.toml: cluster: levels is missing"),
        (
            "based_on = 'board8'\n[[levels]]\nname = 'b'\nsize = 4\nfabric = 'torus'\nbytes_per_s = 1\n"
            "latency_ns = 1\nshape = [2, 3]",
            "mine.toml: levels[0]: level.shape=(2, 3) is not the shape of a torus of 4 chips",
        ),
        (
            "based_on = 'board8'\n[[levels]]\nname = 'b'\nsize = 4\nfabric = 'switch'\nbytes_per_s = 1\n"
            "latency_ns = 1\noversubscription = 0.5",
            "mine.toml: levels[0]: level.oversubscription=0.5 is not between 1 and 64",
        ),
    ],
)
def test_a_file_that_describes_no_cluster_says_why(text, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ChipError) as caught:
        clusters.load("mine.toml")
    assert str(caught.value).startswith(sentence)


def test_a_file_builds_upon_a_reference_cluster(tmp_path):
    path = tmp_path / "slow.toml"
    path.write_text(
        "based_on = 'board8'\nname = 'slow'\n"
        "[[levels]]\nname = 'board'\nsize = 8\nfabric = 'switch'\nbytes_per_s = 1_000_000_000\nlatency_ns = 700\n"
    )
    slow, board = clusters.load(path), clusters.load("board8")
    assert (slow.name, slow.protocols) == ("slow", board.protocols)
    assert dataclasses.replace(slow.levels[0], bytes_per_s=board.levels[0].bytes_per_s) == board.levels[0]


MEASURED_US = {  # NCCL on eight H100 and A100, of the package aiconfigurator-core
    "h100x8": {
        ("all_reduce", 2, 2048): 6.26,
        ("all_reduce", 8, 131_072): 19.01,
        ("all_reduce", 4, 4 << 20): 41.46,
        ("all_reduce", 8, 512 << 20): 2111.7,
        ("all_gather", 2, 65_536): 6.34,
        ("all_gather", 8, 8 << 20): 44.07,
        ("all_gather", 4, 512 << 20): 1268.2,
        ("reduce_scatter", 8, 1 << 20): 14.65,
        ("reduce_scatter", 2, 64 << 20): 169.16,
        ("all_to_all", 4, 1024): 6.83,
        ("all_to_all", 8, 16 << 20): 72.49,
        ("all_to_all", 2, 128 << 20): 268.73,
    },
}


@pytest.mark.parametrize("name", MEASURED_US)
def test_clusters_that_exist_take_the_time_that_was_measured(name):
    cluster = clusters.load(name)
    errors = []
    for (operation, ranks, size_bytes), took_us in MEASURED_US[name].items():
        found = collective_time(cluster, operation, size_bytes, range(ranks))
        errors.append(abs(found.time_ps / 1e6 / took_us - 1))
        assert found.time_ps >= found.least_ps
    assert sum(errors) / len(errors) < 0.08 and max(errors) < 0.25


@pytest.mark.parametrize("name", list(clusters.shipped()))
def test_every_operation_has_protocols(name):
    cluster = clusters.load(name)
    assert all(cluster.protocols_of(operation) for operation in OPERATIONS)
    assert bool(cluster.measured) == (name not in clusters.REFERENCE_CLUSTERS)


def test_a_ring_takes_a_step_for_each_neighbour_and_copies_what_stays():
    ring = Protocol(
        name="ring", base_ns=1_000, step_ns=100, efficiency=0.5, copy_bytes_per_s=1000 * GB, steps="ring",
        operations=("all_gather",),
    )  # fmt: skip
    cluster = Cluster(name="mixed", levels=(fabric(),), protocols=(*PLAIN, ring))
    # 80 MB: seven eighths at half of 100 GB/s, all of it at 1,000 GB/s, and seven steps of 1.1 µs.
    assert collective_time(cluster, "all_gather", 80_000_000, range(8)).time_ps == 1_488_700_000
    assert collective_time(cluster, "reduce_scatter", 80_000_000, range(8)).time_ps == 701_000_000


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Protocol(name="odd", base_ns=0, operations=("all_reduc",)),
            "protocol.operations=('all_reduc',) names 'all_reduc', which is none of all_reduce, ",
        ),
        (
            lambda: Cluster(
                name="few", levels=(fabric(),), protocols=(Protocol(name="one", base_ns=0, operations=("send",)),)
            ),
            "has none for all_reduce; one without operations is for all that have none",
        ),
    ],
)
def test_protocols_that_leave_an_operation_out_are_refused(make, sentence):
    with pytest.raises(ChipError) as refused:
        make()
    assert sentence in str(refused.value)
