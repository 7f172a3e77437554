"""`tapeout serve-sim` from the command line to its pages."""

import json

import pytest
from typer.testing import CliRunner

from tapeout.cli import app
from tapeout.models.batch import Work
from tapeout.serving import scheduler
from tapeout.serving.virtual_time import Stepped


class OneByOne:
    """A server of one request at a time, in place of vLLM's scheduler."""

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
        return Stepped(Work([(size, size)], [], 1) if not done else Work([], [size + done], 1), [index])


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(scheduler, "engine", lambda server, blocks, longest: OneByOne())

    def run(*arguments):
        done = CliRunner().invoke(app, ["serve-sim", *arguments])
        return done

    return run


def test_chips_side_by_side_with_the_rate_they_sustain(run, tmp_path):
    page, each = tmp_path / "page.json", tmp_path / "each.json"
    done = run(
        "llama-3.1-8b", "--trace", "azure-conv", "--requests", "6", "--chip", "H100,inference",
        "--slo", "ttft=2s,tpot=50ms", "--format", "json", "--output", str(page), "--each", str(each),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    head, load, objective = json.loads(page.read_text())["sections"][0]["tables"]
    assert [row["chip"] for row in head["rows"]] == ["H100-SXM5-80GB", "inference"]
    assert float(objective["rows"][0]["highest rate"]["value"]) > 0
    assert load["rows"][0]["busy"].endswith("%")
    requests = json.loads(each.read_text())["chips"]["H100-SXM5-80GB"]["requests"]
    assert len(requests) == 6
    assert all(len(one["token_times_s"]) > 1 and one["ttft_s"] > 0 for one in requests)


def test_what_is_untimed_is_said_and_html_has_pictures(run, tmp_path):
    page = tmp_path / "page.html"
    done = run("smollm2-135m", "--requests", "3", "--chip", "H100", "--format", "html", "--output", str(page))
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "Untimed, so that every time is at least" in text and "<svg" in text
    assert all(title in text for title in ("first token within", "sequences in a step", "length of a step"))


def test_mistakes_are_one_sentence(run):
    for arguments, sentence in (
        (("llama-3.1-8b", "--trace", "none.csv"), "cannot read the trace 'none.csv'"),
        (("llama-3.1-8b", "--slo", "ttft=5"), "'ttft=5' is not an objective"),
        (("no-model",), "unknown model 'no-model'"),
    ):
        done = run(*arguments)
        assert done.exit_code == 1 and sentence in " ".join(done.output.split())
