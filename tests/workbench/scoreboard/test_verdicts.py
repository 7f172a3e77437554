"""Outcomes survive in their file, whatever happens to the run that writes it."""

from hypothesis import given
from hypothesis import strategies as st

from tapeout.errors import UnsupportedError
from tapeout.workbench.scoreboard import verdicts
from tapeout.workbench.scoreboard.verdicts import Case, Outcome, Verdict

cases = st.builds(
    Case, st.text(min_size=1), st.sampled_from(["float32", "bool"]), st.sampled_from(["eager", "compiled"])
)
outcomes = st.builds(Outcome, cases, st.sampled_from(Verdict), st.text(), st.integers(0, 9))


@given(st.lists(outcomes))
def test_the_last_outcome_of_a_case_is_read(tmp_path_factory, written):
    file = tmp_path_factory.mktemp("scoreboard") / "outcomes.jsonl"
    for outcome in written:
        verdicts.append(file, outcome)
    assert verdicts.read(file) == {outcome.case: outcome for outcome in written}


def test_a_half_written_line_is_as_good_as_none(tmp_path):
    file = tmp_path / "outcomes.jsonl"
    whole = Outcome(Case("add", "float32", "eager"), Verdict.NATIVE)
    verdicts.append(file, whole)
    with file.open("a") as stream:
        stream.write('{"case": {"name": "mul", "dt')
    assert verdicts.read(file) == {whole.case: whole}


def test_wrong_is_worse_than_everything():
    case = Case("add", "float32", "eager")
    assert verdicts.worst([Outcome(case, verdict) for verdict in Verdict]).verdict == Verdict.WRONG


def test_only_deliberate_errors_are_clear():
    assert verdicts.is_clear(UnsupportedError("tl.sort", dtype="f64"))
    assert verdicts.is_clear(NotImplementedError("no"))
    assert not verdicts.is_clear(RuntimeError("shape '[2]' is invalid"))
    try:
        try:
            raise UnsupportedError("tl.sort")
        except UnsupportedError as error:
            raise RuntimeError("backend raised") from error
    except RuntimeError as error:
        assert verdicts.is_clear(error)
