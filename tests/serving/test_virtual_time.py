"""Time of requests, objectives and the highest rate, on an engine small enough to reckon by hand."""

import pytest

from tapeout.errors import TapeoutError
from tapeout.models.batch import BatchTime, Work
from tapeout.serving.objectives import Figures, Objective, ObjectiveError, RequestTimes, figures_of
from tapeout.serving.search import highest_rate
from tapeout.serving.traces import Arrival, at_rate
from tapeout.serving.virtual_time import Stepped, serve


class InOrder:
    """One request at a time: a step for its whole prompt and first token, then one a token."""

    def __init__(self):
        self.queue = []

    @property
    def is_busy(self):
        return bool(self.queue)

    def add(self, index, arrival):
        self.queue.append([index, arrival, 0])

    def step(self):
        index, arrival, done = self.queue[0]
        self.queue[0][2] += 1
        if done + 1 == arrival.output_tokens:
            self.queue.pop(0)
        size = arrival.prompt_tokens
        work = Work([(size, size)], [], 1) if not done else Work([], [size + done], 1)
        return Stepped(work, [index], cache_share=0.5)


def one_second_a_token(work):
    return BatchTime(float(work.tokens), {"memory": work.tokens * 0.75, "launch": work.tokens * 0.25})


def test_requests_wait_for_each_other_and_an_idle_server_waits_for_requests():
    trace = (Arrival(0, 3, 2), Arrival(1, 2, 1), Arrival(100, 1, 1))
    served = serve(trace, InOrder(), one_second_a_token)
    assert [each.token_times_s for each in served.requests] == [(3, 4), (6,), (101,)]
    assert [each.ttft_s for each in served.requests] == [3, 5, 1]
    assert (served.span_s, served.busy_s, served.output_tokens) == (101, 7, 4)
    assert served.busy_ps == {"memory": 5.25e12, "launch": 1.75e12}


def test_the_hosts_time_is_between_steps():
    served = serve((Arrival(0, 3, 2),), InOrder(), one_second_a_token, host_ps=10**12)
    assert served.requests[0].token_times_s == (4, 6)
    assert served.busy_ps["host"] == 2 * 10**12


def test_an_engine_that_never_runs_a_request_is_an_error():
    class Stuck(InOrder):
        def step(self):
            return Stepped(Work([], [], 0), [])

    with pytest.raises(TapeoutError, match="cache is too small for one"):
        serve((Arrival(0, 3, 2),), Stuck(), one_second_a_token)


def test_measures_of_a_request():
    request = RequestTimes(1.0, 10, (2.0, 3.0, 5.0))
    assert (request.ttft_s, request.tpot_s, request.gaps_s, request.e2e_s) == (1.0, 1.5, [1.0, 2.0], 4.0)
    assert RequestTimes(0, 1, (2.0,)).tpot_s is None
    figures = figures_of([request, RequestTimes(0, 1, (2.0,))])
    assert figures["tpot"] == Figures(1.5, {50: 1.5, 90: 1.5, 99: 1.5})
    assert figures["ttft"].mean_s == 1.5 and figures["ttft"].at_s[99] == pytest.approx(1.99)


def test_objectives():
    objective = Objective.of("ttft=1s, tpot=1500ms,itl=2s")
    request = RequestTimes(1.0, 10, (2.0, 3.0, 5.0))
    assert objective.is_held_by(request)
    assert not Objective.of("itl=1999ms").is_held_by(request)
    assert Objective.of("tpot=1us").is_held_by(RequestTimes(0, 1, (2.0,)))  # one token has none
    assert objective.share_held([request, RequestTimes(0, 1, (2.0,))]) == 0.5
    assert str(Objective.of("ttft=200ms,tpot=50ms")) == "TTFT <= 200 ms, TPOT <= 50 ms"
    for wrong in ("", "ttft", "ttft=5", "speed=1ms", "ttft=1.2.3ms"):
        with pytest.raises(ObjectiveError):
            Objective.of(wrong)


@pytest.mark.parametrize("start", [0.01, 1.0, 7.0, 300.0])
def test_the_highest_rate_is_found_from_either_side(start):
    found = highest_rate(lambda rate: rate <= 7.3, start)
    assert found.rate_per_s <= 7.3 < found.fails_at <= found.rate_per_s * 1.03


def test_a_rate_that_nothing_limits_or_nothing_reaches():
    assert highest_rate(lambda rate: True, 1.0).fails_at is None
    assert highest_rate(lambda rate: False, 1.0).rate_per_s == 0


def test_the_highest_rate_of_a_queue():
    trace = tuple(Arrival(float(index), 1, 1) for index in range(200))  # a second of service each
    held = Objective.of("ttft=2s")

    def holds(rate):
        return held.share_held(serve(at_rate(trace, rate), InOrder(), one_second_a_token).requests) >= 0.99

    # Two may miss. The last that may not, after 197 others, waits 197 (1 - 1/rate) and is served for one second.
    found = highest_rate(holds, 5.0)
    assert found.rate_per_s <= 197 / 196 < found.fails_at <= found.rate_per_s * 1.03
