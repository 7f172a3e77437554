"""Queries of a ranking service, and the operator models' time of one."""

import numpy as np
import pytest

from tapeout.errors import TapeoutError
from tapeout.models import questions, ranking
from tapeout.serving import queries


def test_queries_wait_in_line_or_go_together():
    arrivals = [0.0, 0.5, 0.6, 5.0]
    assert queries.latencies(arrivals, lambda count: 1.0) == pytest.approx([1.0, 1.5, 2.4, 1.0])
    together = queries.latencies(arrivals, lambda count: 1.0 + 0.1 * (count - 1), max_batch=8)
    assert together == pytest.approx([1.0, 1.6, 1.5, 1.0])


def test_a_queue_is_the_textbooks():
    waits = queries.latencies(queries.poisson(800, 200_000, seed=2), lambda count: 1e-3)
    assert np.mean(waits) == pytest.approx(1e-3 * (1 + 0.8 / (2 * 0.2)), rel=0.05)  # M/D/1 at 80 %


@pytest.mark.parametrize("arrive", [queries.poisson, queries.bursty])
def test_arrivals_have_the_rate_and_are_the_same_for_a_seed(arrive):
    found = arrive(1000, 100_000, seed=3)
    assert found == sorted(found) == arrive(1000, 100_000, seed=3)
    assert len(found) / found[-1] == pytest.approx(1000, rel=0.1)


def test_bursts_come_in_bursts():
    def variation(arrivals):
        counts = np.histogram(arrivals, np.arange(0, arrivals[-1], 0.02))[0]
        return np.var(counts) / np.mean(counts)

    assert variation(queries.poisson(1000, 50_000)) < 1.2 < 5 < variation(queries.bursty(1000, 50_000))
    with pytest.raises(TapeoutError, match="leave nothing for the rest"):
        queries.bursty(1, 1, peak=20, share=0.1)


def test_a_dlrm_query_is_made_of_its_operators():
    timer = questions.timers(["H100"])[0]
    shape = ranking.SHAPES["dlrm"]
    names = [each.name for each in ranking.operations(shape, 256)]
    assert names.count("embeddings") == 1 and len(names) == 16
    assert ranking.seconds(shape, 256, timer) < ranking.seconds(shape, 4096, timer)
    assert ranking.seconds(shape, 256, timer) < ranking.seconds(ranking.SHAPES["dcn-v2"], 256, timer)
