"""The pages of docs/scoreboard: what they say is read back, and a few of their cases are judged again."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tapeout.report import scoreboard as report
from tapeout.workbench.scoreboard import architectures, operators, verdicts
from tapeout.workbench.scoreboard.verdicts import Case, Outcome, Run, Verdict

PAGES = Path(__file__).parents[3] / "docs" / "scoreboard"

# One of each mode and dtype, each of another family: elementwise, reductions, indexing, products, layers, losses.
OPERATORS = (
    Case("nn.functional.layer_norm", "float32", "eager"),
    Case("cumsum", "float64", "eager"),
    Case("nn.functional.avg_pool1d", "bfloat16", "eager"),
    Case("linalg.vector_norm", "float16", "eager"),
    Case("gather", "int64", "eager"),
    Case("bitwise_xor", "int32", "eager"),
    Case("any", "bool", "eager"),
    Case("nn.functional.mse_loss", "float32", "compiled"),
    Case("index_select", "float64", "compiled"),
    Case("softmax", "bfloat16", "compiled"),
    Case("mm", "float16", "compiled"),
    Case("where", "int64", "compiled"),
    Case("scatter_add", "int32", "compiled"),
    Case("logical_and", "bool", "compiled"),
)


def outcome(name: str, verdict: Verdict, cause: str = "", dtype: str = "float32", mode: str = "eager") -> Outcome:
    return Outcome(Case(name, dtype, mode), verdict, cause, 1)


def test_a_page_is_read_back():
    outcomes = [
        outcome("add", Verdict.NATIVE),
        outcome("add", Verdict.WRONG, "result 0: 1 | 2", mode="compiled"),
        outcome("svd", Verdict.FALLBACK, "aten::_linalg_svd.U"),
        outcome("and", Verdict.NATIVE, dtype="bool"),
    ]
    page = report.page("operators", outcomes, 9, [Run(3, 2400.0, 2, 2, "2026-01-31"), Run(1, 5.0, 2, 2, "2026-02-01")])
    assert report.recorded(page) == {row.case: row.verdict for row in outcomes}
    assert "**2 of 3** are native" in page
    assert "By the clock: 3 cases in 40 minutes on 2026-01-31 (2 processes on 2 cores)." in page
    assert "| svd | eager | float32 | fallback | aten::_linalg_svd.U |" in page


def test_what_is_worse_than_before_or_newly_wrong_is_a_regression():
    before = {outcome(name, Verdict.NATIVE).case: Verdict.FALLBACK for name in ("a", "b", "c")}
    now = [outcome("a", Verdict.NATIVE), outcome("b", Verdict.FALLBACK), outcome("c", Verdict.REFUSED, "why")]
    new = [outcome("new", Verdict.WRONG, "x"), outcome("other", Verdict.FALLBACK)]
    assert report.regressions([*now, *new], before) == [now[2], new[0]]


@pytest.mark.parametrize("case", OPERATORS, ids=str)
def test_operators_are_as_good_as_on_their_page(case):
    recorded = report.recorded((PAGES / "operators.md").read_text("utf-8"))
    assert report.regressions([operators.judge(case, sample_limit=1)], {case: recorded[case]}) == []


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_an_architecture_is_as_good_as_on_its_page(mode):
    recorded = report.recorded((PAGES / "architectures.md").read_text("utf-8"))
    case = Case("two-tower", "float32", mode)
    assert report.regressions([architectures.judge(case, sample_limit=1)], {case: recorded[case]}) == []


def test_kernels_of_other_packages_are_as_good_as_on_their_page(tmp_path):
    if not importlib.util.find_spec("flag_gems"):
        pytest.skip("flag-gems is not installed")
    names = r"^(liger_kernel\.liger_(swiglu|softmax)|flag_gems\.(neg|threshold))$"
    options = ["--only", names, "--processes", "1", "--outcomes", str(tmp_path / "outcomes.jsonl")]
    command = [sys.executable, "-m", "tapeout", "scoreboard", "kernels", *options]
    done = subprocess.run([*command, "--against", str(PAGES / "kernels.md")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(verdicts.read(tmp_path / "outcomes.jsonl")) == 4
