"""The table under an answer names everything the chip did and everything it did not."""

from rich.console import Console

from tapeout.report.answer import table_of
from tapeout.workbench.language_model import Answer
from tapeout.workbench.work import Work

GOLDEN = """\
tokens        3 after a prompt of 5
host time     2.00 s, first token after 1.00 s
rate          2.0 tokens/s at the median wait between tokens
kernels       7 compiled, 2 from the cache, 30 launches
instructions  vector 40, matrix 3
HBM traffic   1.5 MB read, 20 B written
operators     75.0% on the chip
on the host   aten::sort 1"""


def printed(answer: Answer) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table_of(answer))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def test_golden():
    work = Work(
        kernels_compiled=7,
        kernels_loaded=2,
        kernels_launched=30,
        instructions_by_engine={"matrix": 3, "vector": 40},
        hbm_read_bytes=1_500_000,
        hbm_written_bytes=20,
        ops_on_chip={"aten::mm": 3},
        ops_on_host={"aten::sort": 1},
    )
    assert printed(Answer("", 5, (1, 2, 3), token_times_s=(1.0, 1.5, 2.0), work=work)) == GOLDEN


def test_an_answer_of_one_token_without_a_chip():
    text = printed(Answer("", 5, (1,), token_times_s=(1.0,), work=Work()))
    assert "rate" not in text
    assert "operators" not in text
    assert text.endswith("on the host   no operator")
