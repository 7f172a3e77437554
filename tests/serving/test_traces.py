"""Traces: what files say, what the shipped one holds, rates."""

import pytest

from tapeout.serving import traces
from tapeout.serving.traces import Arrival, TraceError


@pytest.fixture
def written(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_the_shipped_trace_is_azures():
    found = traces.called("azure-conv")
    assert len(found) == 19_366
    assert found[:2] == (Arrival(0.0, 374, 44), Arrival(4.315, 396, 109))
    assert round(traces.rate_of(found), 2) == 5.53
    assert sum(each.prompt_tokens for each in found) // len(found) == 1154


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "azure.csv",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:48.1805900,396,109\n",
        ),
        ("vidur.csv", "arrived_at,num_prefill_tokens,num_decode_tokens\n5.5,396,109\n4,374,44\n"),
        ("burst.csv", "Timestamp,Model,Request tokens,Response tokens\n1,a,374,44\n2.5,a,396,109\n"),
        (
            "timed.jsonl",
            '{"timestamp": 10, "input_length": 374, "output_length": 44}\n\n'
            '{"timestamp": 1510, "input_length": 396, "output_length": 109}\n',
        ),
        (
            "nanoseconds.jsonl",
            '{"arrival_time_ns": 0, "input_toks": 374, "output_toks": 44}\n'
            '{"arrival_time_ns": 1500000000, "input_toks": 396, "output_toks": 109}\n',
        ),
    ],
)
def test_files_of_other_tools_say_the_same(written, name, text):
    first, second = traces.called(str(written(name, text)))
    assert (first.prompt_tokens, first.output_tokens, first.time_s) == (374, 44, 0)
    assert (second.prompt_tokens, second.output_tokens) == (396, 109)
    assert second.time_s == pytest.approx(1.5, abs=1e-6)


def test_marks_of_shared_prefixes_are_kept(written):
    path = written("t.jsonl", '{"timestamp": 0, "input_length": 600, "output_length": 1, "hash_ids": [3, 4]}\n')
    assert traces.read(path)[0].prefix == (3, 4)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "arrived_at,output_tokens\n1,2\n", "t.csv:2: no prompt's length; known columns: prompt_tokens, "),
        (
            "t.csv",
            "arrived_at,prompt_tokens,output_tokens\n1,2,0\n",
            "t.csv:2: output_tokens='0' is not a number of tok",
        ),
        ("t.csv", "timestamp,prompt_tokens,output_tokens\nnoon,2,1\n", "t.csv:2: timestamp='noon' is neither a number"),
        ("t.csv", "arrived_at,prompt_tokens,output_tokens\n", "t.csv: no request in the trace"),
        ("t.jsonl", "{}\n[1]\n", "t.jsonl:2: a request is an object, not list"),
        ("t.jsonl", '{"timestamp": 0,\n', "t.jsonl:1: not JSON"),
    ],
)
def test_a_bad_line_is_named(written, name, text, message):
    with pytest.raises(TraceError, match=r".*" + message.replace(".", r"\.")):
        traces.read(written(name, text))


def test_poisson_arrivals_are_the_same_for_the_same_seed_and_have_the_rate():
    made = traces.called("poisson:4", count=2000, seed=1)
    assert made == traces.called("poisson:4", count=2000, seed=1) != traces.called("poisson:4", count=2000, seed=2)
    assert traces.rate_of(made) == pytest.approx(4, rel=0.05)
    with pytest.raises(TraceError, match="requests a second"):
        traces.called("poisson:-1")


def test_a_trace_at_another_rate_keeps_requests_and_gaps():
    trace = traces.called("azure-conv", count=50)
    faster = traces.at_rate(trace, 20)
    assert traces.rate_of(faster) == pytest.approx(20)
    assert [each.prompt_tokens for each in faster] == [each.prompt_tokens for each in trace]
    stretch = faster[7].time_s / trace[7].time_s
    assert all(
        after.time_s == pytest.approx(before.time_s * stretch) for before, after in zip(trace, faster, strict=True)
    )


def test_lengths_in_place_of_the_traces_own():
    assert {
        (each.prompt_tokens, each.output_tokens) for each in traces.called("azure-conv", count=9, lengths="512:128")
    } == {(512, 128)}
