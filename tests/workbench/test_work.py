"""Two totals subtract to what happened in between."""

from tapeout.workbench.work import Work


def test_difference():
    before = Work(kernels_launched=2, instructions_by_engine={"vector": 10}, ops_on_chip={"aten::mm": 1})
    after = Work(
        kernels_launched=5,
        instructions_by_engine={"vector": 14, "matrix": 3},
        ops_on_chip={"aten::mm": 1},
        ops_on_host={"aten::sort": 1},
    )
    between = after - before
    assert between == Work(
        kernels_launched=3, instructions_by_engine={"vector": 4, "matrix": 3}, ops_on_host={"aten::sort": 1}
    )
    assert between.share_on_chip == 0
    assert Work().share_on_chip is None
    assert after.share_on_chip == 0.5
