"""Laws of the operator models, their provenance, and the tables they read, with the parameters that ship."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tapeout.accelerator import of_catalogued
from tapeout.chip.catalog import CataloguedChip, Fact
from tapeout.cli import app
from tapeout.figures import Provenance
from tapeout.models import (
    measure,
    measured,
    neighbours,
    parameters,
    predict,
    questions,
    step,
    trees,
    user_fit,
    userrows,
)
from tapeout.models.forms import FORMS, gemm
from tapeout.models.machine import machine
from tapeout.models.tables import CHECK_BELOW, FIT_BELOW, KINDS, ModelError, share_of_hash, table
from tapeout.models.timers import Timer, as_product
from tapeout.silicon import technology
from tapeout.silicon.naming import accelerator

FIGURES = technology.load()
H100 = Timer(chip=accelerator("H100", FIGURES))
SHAPES = {
    "gemm": {"m": 768, "n": 4096, "k": 1024},
    "context_attention": {"batch_size": 4, "isl": 1024, "num_heads": 32, "num_key_value_heads": 8},
    "generation_attention": {"batch_size": 32, "step": 4096, "num_heads": 32, "num_key_value_heads": 8},
    "context_mla": {"batch_size": 2, "isl": 1024},
    "generation_mla": {"batch_size": 16, "step": 2048},
    "moe": {"num_tokens": 256, "hidden_size": 4096, "inter_size": 1536, "topk": 8, "num_experts": 128},
    "all_reduce": {"num_gpus": 8, "message_size": 1 << 20},
    "all_gather": {"num_gpus": 4, "message_size": 1 << 20},
    "reduce_scatter": {"num_gpus": 2, "message_size": 1 << 12},
    "alltoall": {"num_gpus": 8, "message_size": 1 << 24},
    "norm": {"rows": 4096, "columns": 4096},
    "softmax": {"rows": 64, "columns": 1000},
    "elementwise": {"elements": 1 << 20},
    "embedding": {"rows": 4096, "columns": 128, "bag": 20},
    "convolution": {"batch": 8, "channels": 64, "height": 56, "width": 56, "filters": 64, "kernel": 3},
}
DTYPES = {name: "half" if name in measured.COLLECTIVES else "bfloat16" for name in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["H100", "MI300X", "inference", "training"])
def test_every_operator_has_a_time_with_range_bound_and_provenance_on_measured_unmeasured_and_own_chips(kind, name):
    found = Timer(chip=accelerator(name, FIGURES), assume=True).time(table(kind, DTYPES[kind], **SHAPES[kind]))
    assert 0 < found.low[0] <= found.seconds[0] <= found.high[0] < 10 and np.isfinite(found.high[0])
    assert found.bound[0] in ("matrix", "memory", "launch", "link", "vector")
    assert Provenance.named(found.provenance[0]) >= Provenance.MODELLED and found.basis


sizes = st.integers(0, 14).map(lambda power: 1 << power) | st.integers(1, 20_000)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, st.sampled_from("mnk"), st.sampled_from(["bfloat16", "fp8"]))
def test_a_product_never_takes_less_time_when_a_size_doubles_nor_less_than_the_roofline(m, n, k, doubled, dtype):
    first = {"m": m, "n": n, "k": k}
    second = first | {doubled: 2 * first[doubled]}
    rows = table("gemm", dtype, **{name: np.array([first[name], second[name]], float) for name in first})
    found = H100.time(rows)
    assert found.seconds[1] >= found.seconds[0]
    of = machine(H100.chip, dtype, "gemm")
    size = 2 if dtype == "bfloat16" else 1
    moved = size * (m * k + k * n) + 2 * m * n
    floor = max(2 * m * n * k / of.peak_flop_per_s, moved / of.memory_byte_per_s)
    assert found.seconds[0] >= floor * (1 - 1e-12)


@pytest.mark.parametrize(
    "kind", ["context_attention", "generation_attention", "moe", "all_reduce", "norm", "embedding"]
)
def test_other_operators_never_take_less_time_when_a_size_doubles(kind):
    generator = np.random.default_rng(1)
    fields = [name for name in FORMS[kind].sizes if name in KINDS[kind].fields]
    for name in fields:
        scales = {field: 2.0 ** generator.integers(-3, 3, 40) for field in fields}
        base = {
            field: np.maximum(1, np.floor(value * scales.get(field, np.ones(40))))
            for field, value in SHAPES[kind].items()
        }
        if "num_heads" in base:
            base["num_heads"] = np.maximum(base["num_heads"], base["num_key_value_heads"])
        once = H100.time(table(kind, DTYPES[kind], **base))
        twice = H100.time(table(kind, DTYPES[kind], **(base | {name: 2 * base[name]})))
        assert (twice.seconds >= once.seconds).all(), name


@pytest.mark.parametrize("dtype", ["fp8", "fp8_block"])
def test_a_doubled_size_takes_no_less_time_where_measured_rows_do(dtype):
    # Rows of both types depend on the alignment of m and on the host; answers still obey.
    m = np.array([3.0, 6, 12, 24, 48, 513, 1026, 2052, 4104])
    for n, k in ((4096, 4096), (1024, 7168), (128, 2560)):
        found = H100.time(table("gemm", dtype, m=m, n=n, k=k)).seconds
        assert (np.diff(found[:5]) >= 0).all() and (np.diff(found[5:]) >= 0).all()


def test_constants_over_chips_are_those_of_the_element_type_without_the_family():
    h100 = Timer(chip=H100.chip, without_family=True)
    rows = {dtype: table("gemm", dtype, m=2048, n=512, k=4096) for dtype in ("bfloat16", "fp8")}
    found = {dtype: h100.parameters_for(rows[dtype]) for dtype in rows}
    known = parameters.priors()["hopper"]
    assert found == {dtype: known[f"gemm|{dtype}"].parameters for dtype in rows}
    assert known["gemm|fp8"].parameters != parameters.priors()[""]["gemm|fp8"].parameters
    assert "family hopper left out" in h100.time(rows["fp8"]).basis
    # What no two families were measured with takes the constants of the nearest type.
    assert h100.parameters_for(table("gemm", "nvfp4", m=64, n=512, k=4096)) == found["fp8"]


def test_types_that_few_families_have_take_constants_from_rows_of_others():
    b200 = Timer(chip=accelerator("B200", FIGURES), without_family=True)
    sizes = {"num_tokens": 64, "hidden_size": 4096, "inter_size": 1536, "topk": 8, "num_experts": 128}
    found = [b200.parameters_for(table("moe", dtype, **sizes)) for dtype in ("bfloat16", "fp8", "nvfp4")]
    assert found[0] == found[1] == found[2]
    # Only the host's part is the type's own, and lies between the form's usual one and those of measured families.
    known = parameters.priors()["blackwell"]
    block, plain = known["gemm|fp8_block"].parameters, known["gemm|fp8"].parameters
    assert {name for name in plain if plain[name] != block[name]} == {"call"}
    assert gemm.PARAMETERS["call"][0] < block["call"] < 200


def test_a_product_that_the_host_starts_takes_what_the_host_or_the_device_takes():
    of = machine(H100.chip, "fp8_block", "gemm")
    p = {name: limits[0] for name, limits in gemm.PARAMETERS.items()}
    rows = table("gemm", "fp8_block", m=np.array([1.0, 16384.0]), n=8192, k=8192)
    without, slow = (gemm.time(of, p | {"call": call}, rows) for call in (0.3, 100.0))
    assert slow.seconds[0] == pytest.approx(200e-6, rel=0.02) and slow.bound()[0] == "launch"
    assert slow.seconds[1] == pytest.approx(without.seconds[1], rel=0.01)


def test_narrow_products_pay_for_narrowing_their_input_where_the_chip_has_the_type():
    def narrowing(name, dtype):
        chip = accelerator(name, FIGURES)
        of = machine(chip, dtype, "gemm", assume=True)
        p = {name: limits[0] for name, limits in gemm.PARAMETERS.items()}
        rows = table("gemm", dtype, m=np.array([16.0, 4096.0]), n=128, k=8192)
        return gemm.time(of, p, rows).bounds["launch"] - gemm.time(of, p | {"quantise": 0.05}, rows).bounds["launch"]

    assert narrowing("H100", "fp8") == pytest.approx(0.95e-6)
    assert narrowing("H100", "bfloat16") == pytest.approx(0.0)
    assert narrowing("A100", "fp8") == pytest.approx(0.0)  # it widens the weights


def test_times_of_random_shapes_are_finite_and_positive():
    generator = np.random.default_rng(0)
    m, n, k = (np.floor(2.0 ** generator.uniform(0, 24, 20_000)) for _ in range(3))
    found = H100.time(table("gemm", "bfloat16", m=m, n=n, k=k))
    for values in (found.low, found.seconds, found.high):
        assert np.isfinite(values).all() and (values > 0).all()
    assert (found.low <= found.seconds).all() and (found.seconds <= found.high).all()


def test_a_row_has_the_same_time_alone_and_in_a_table():
    rows = table("gemm", "bfloat16", m=np.array([1.0, 96, 4096]), n=np.array([4096.0, 512, 4096]), k=4096)
    together = H100.time(rows).seconds
    alone = [H100.time(rows.take(np.array([number]))).seconds[0] for number in range(3)]
    assert together.tolist() == alone


def test_the_machine_code_of_the_product_form_is_the_plain_one():
    generator = np.random.default_rng(0)
    m, n, k = (np.floor(2.0 ** generator.uniform(0, 17, 300)) for _ in range(3))
    p = {name: limits[0] for name, limits in gemm.PARAMETERS.items()}
    for dtype in ("bfloat16", "fp8", "int4_wo"):
        rows = table("gemm", dtype, m=m, n=n, k=k)
        of = machine(H100.chip, dtype, "gemm")
        for plain, quick in zip(gemm.plainly(of, p, rows), gemm.quickly(of, p, rows), strict=True):
            assert plain == pytest.approx(quick, rel=1e-12)


def test_trees_come_near_a_function_and_survive_their_file():
    generator = np.random.default_rng(0)
    features = generator.uniform(-1, 1, (3000, 3))
    wanted = np.sin(3 * features[:, 0]) + (features[:, 1] > 0)
    made = trees.fit(features, wanted, tree_count=100, depth=4)
    assert np.abs(made.predict(features) - wanted).mean() < 0.05
    kept = trees.Trees.from_dict(made.to_dict())
    assert (kept.predict(features) == made.predict(features)).all()


def test_neighbours_pull_what_lies_near_them_and_survive_their_file():
    generator = np.random.default_rng(0)
    features = generator.uniform(-2, 2, (120, 3))
    wanted = 0.3 * np.sin(2 * features[:, 0]) + 0.1 * features[:, 1]
    made, left_out = neighbours.fit(features, wanted)
    assert np.abs(left_out).mean() < 0.25 * np.abs(wanted - np.median(wanted)).mean()
    assert np.abs(made.predict(features) - wanted).mean() < 0.01
    assert made.predict(np.full((1, 3), 1e3))[0] == pytest.approx(made.base)
    kept = neighbours.Neighbours.from_dict(made.to_dict())
    assert (kept.predict(features) == made.predict(features)).all()


@pytest.mark.parametrize("count", [32, 200])
def test_shapes_to_measure_are_different_and_the_first_of_more(count):
    first, more = (list(measure.shapes(number)) for number in (count, count + 30))
    assert first == more[:count] and len({tuple(row.items()) for row in more}) == len(more)
    assert {row["op"] for row in first} == set(measure.OPERATORS)
    assert {row["op"] for row in measure.shapes(20, ["norm"])} == {"norm"}


def test_many_steps_at_once_take_what_each_takes_alone():
    steps = [
        step.Step(model=step.model_called(name), batch=batch, context=1024, tp=4)
        for name in ("llama-3.1-8b", "qwen3-30b-a3b")
        for batch in (1, 64)
    ]
    together = step.seconds_of(steps, H100)
    assert together == pytest.approx([step.answer(each, H100).seconds for each in steps], rel=1e-9)


def test_a_convolution_is_the_product_it_is():
    rows = as_product(table("convolution", "bfloat16", **SHAPES["convolution"]))
    assert [rows[name][0] for name in "mnk"] == [8 * 54 * 54, 64, 64 * 9]


def of_facts(confidence):
    figures = {
        "half_tflops": 400.0,
        "memory_gb_per_s": 2000.0,
        "last_level_mb": 64.0,
        "compute_units": 80.0,
        "tdp_w": 350.0,
    }
    cells = {name: Fact(value, "datasheet", "test") for name, value in figures.items()}
    cells["memory_gb_per_s"] = Fact(2000.0, confidence, "test")
    return of_catalogued(CataloguedChip("card", cells))


def test_a_press_figure_makes_a_time_assumed_and_its_range_wider():
    rows = table("gemm", "bfloat16", **SHAPES["gemm"])
    sure, unsure = (Timer(chip=of_facts(word)).time(rows) for word in ("datasheet", "press"))
    assert (sure.provenance[0], unsure.provenance[0]) == ("modelled", "assumed")
    assert sure.seconds[0] == unsure.seconds[0] and unsure.high[0] > sure.high[0]


def test_a_missing_figure_is_named_with_the_ways_to_give_it():
    chip = dataclasses.replace(of_facts("datasheet"), compute_units=None)
    with pytest.raises(ModelError) as caught:
        Timer(chip=chip).time(table("gemm", "bfloat16", **SHAPES["gemm"]))
    assert str(caught.value) == (
        "card has no compute_units, which the time of gemm needs; add it in a table of your own (--catalog), fit "
        "parameters to measured rows (`tapeout models fit`) or let --assume take the class's usual value"
    )
    assumed = Timer(chip=chip, assume=True).time(table("gemm", "bfloat16", **SHAPES["gemm"]))
    assert assumed.provenance[0] == "assumed"


WHOLE = "it is a whole number from 1 to 1e+15"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: table("gemm", "bfloat16", m=1, n=2), "gemm needs k; it takes m, n, k"),
        (lambda: table("gemm", "bfloat16", m=-1, n=2, k=3), "gemm m=-1 is not a size; " + WHOLE),
        (lambda: table("gemm", "bfloat16", m=1.5, n=2, k=3), "gemm m=1.5 is not a size; " + WHOLE),
        (lambda: table("gemm", "bfloat16", m=1, n=2, k=3, z=4), "gemm has no field 'z'; it has m, n, k"),
        (
            lambda: table("moe", "bfloat16", **(SHAPES["moe"] | {"topk": 200})),
            "moe topk=200, num_experts=128: more experts a token than experts",
        ),
        (lambda: questions.table_of("gemm", list("1234"), "bfloat16"), "gemm has 3 sizes, m, n, k; '4' is one more"),
        (lambda: questions.table_of("gemm", ["1", "two", "3"], "bfloat16"), "gemm n='two' is not a number"),
        (lambda: questions.table_of("gemm", ["-1", "2", "3"], "bfloat16"), "gemm m=-1 is not a size; " + WHOLE),
        (lambda: questions.table_of("gemm", ["1", "--onn"], "bfloat16"), "there is no option '--onn'"),
    ],
)  # fmt: skip
def test_an_operator_that_cannot_be_is_one_sentence(ask, message):
    with pytest.raises(ModelError) as caught:
        ask()
    assert str(caught.value) == message


def test_a_negative_size_on_the_command_line_is_a_size():
    answer = CliRunner().invoke(app, ["time", "gemm", "-1", "2", "3"])
    assert answer.exit_code != 0
    assert " ".join(answer.output.split()) == "error: gemm m=-1 is not a size; " + WHOLE


def test_a_type_the_chip_lacks_is_refused():
    chip = dataclasses.replace(H100.chip, peak={"bfloat16": H100.chip.peak["bfloat16"]})
    with pytest.raises(ModelError) as caught:
        Timer(chip=chip).time(table("gemm", "float64", **SHAPES["gemm"]))
    assert str(caught.value) == "H100-SXM5-80GB has no peak rate for float64; it has bfloat16"


HEADER = "op,dtype,m,n,k,seconds\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "gemm,bfloat16,1,2,x,1e-6\n", "rows.csv:2: k='x' is not a number"),
        (HEADER + "gemm,bfloat16,1,2,0,1e-6\n", "rows.csv:2: k=0 is not a size; it is a whole number from 1 to 1e+15"),
        (HEADER + "gemm,bfloat16,1,2,3,1e6\n", "rows.csv:2: seconds=1e6 is not a time of an operator in s"),
        (HEADER + "gemm,bfloat16,1,2,3\n", "rows.csv:2: 5 cells where the header has 6"),
        (HEADER + "gemm,bf17,1,2,3,1\n", None),
        (HEADER, "rows.csv: holds no rows"),
        ("m,n,k\n1,2,3\n", "rows.csv:1: no column says the element type; name one `dtype`"),
        ("op,dtype,m,n,k\ngemm,bfloat16,1,2,3\n", None),
    ],
)
def test_a_bad_table_is_refused_by_row_and_column(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(ModelError) as caught:
        userrows.read(tmp_path / "rows.csv", needs_times=True)
    assert str(caught.value).startswith("rows.csv:")
    if message:
        assert str(caught.value) == message


def test_a_table_with_the_columns_of_the_measured_ones_comes_back_with_times(tmp_path):
    (tmp_path / "rows.csv").write_text(
        "framework,version,op_name,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,"
        "distribution,seconds\nVLLM,0.24.0,moe,bfloat16,256,4096,1536,8,128,1,1,balanced,1e-3\n"
    )
    assert predict.predict(tmp_path / "rows.csv", tmp_path / "out.csv", "H100") == 1
    (row,) = csv.DictReader((tmp_path / "out.csv").open())
    assert float(row["low"]) <= float(row["seconds"]) <= float(row["high"])
    assert row["measured_seconds"] == "1e-3" and row["provenance"] == "modelled" and row["bound"]


def test_a_measured_row_is_the_answer_for_its_own_shape_and_moves_the_rest(tmp_path):
    truth = Timer(chip=accelerator("H200", FIGURES))
    generator = np.random.default_rng(3)
    m, n, k = (np.floor(2.0 ** generator.uniform(4, 13, 40)) for _ in range(3))
    rows = table("gemm", "bfloat16", m=m, n=n, k=k)
    slow = dataclasses.replace(rows, seconds=truth.time(rows).seconds * 1.5)
    before = Timer(chip=accelerator("H100", FIGURES), without_family=True)
    after = dataclasses.replace(before, rows=(slow,), _fits={})
    assert after.time(rows).seconds.tolist() == slow.seconds.tolist()
    assert set(after.time(rows).provenance) == {"measured"}
    others = table("gemm", "bfloat16", m=m + 1, n=n, k=k)
    wanted = truth.time(others).seconds * 1.5
    errors = [np.abs(timer.time(others).seconds / wanted - 1).mean() for timer in (before, after)]
    assert errors[1] < 0.7 * errors[0]


def test_rows_of_ones_own_become_parameters_that_predict_better(tmp_path, monkeypatch):
    monkeypatch.setenv(questions.FOLDER_VARIABLE, str(tmp_path / "models"))
    generator = np.random.default_rng(4)
    lines = ["op,dtype,m,n,k,seconds"]
    sizes = np.floor(2.0 ** generator.uniform(4, 13, (60, 3)))
    rows = table("gemm", "bfloat16", m=sizes[:, 0], n=sizes[:, 1], k=sizes[:, 2])
    times = 5e-6 + 2 * H100.time(rows).seconds
    lines += [f"gemm,bfloat16,{m:.0f},{n:.0f},{k:.0f},{t}" for (m, n, k), t in zip(sizes, times, strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    made = user_fit.fit_rows(tmp_path / "mine.csv", "MI300X")
    (change,) = made.changes
    assert change.after < change.before and change.after < 0.2
    text = parameters.written(made.parameters)
    again = user_fit.fit_rows(tmp_path / "mine.csv", "MI300X")
    assert parameters.written(again.parameters) == text
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.toml").write_text(text)
    (timer,) = questions.timers(["MI300X"])
    assert "own-mi300x" in timer.time(rows).basis


def test_simulated_parameters_are_those_of_the_rows_that_ship_and_hold_for_that_description_alone(tmp_path):
    folder = Path(parameters.__file__).parent / "data"
    made = user_fit.fit_rows(folder / "simulated" / "inference.csv", "inference")
    kept = parameters.shipped()["simulated-inference"]
    assert made.parameters.rows_sha256 == kept.rows_sha256
    rows = table("gemm", "bfloat16", **SHAPES["gemm"])
    chip = accelerator("inference", FIGURES)
    assert "simulated-inference" in Timer(chip=chip).time(rows).basis
    other = dataclasses.replace(chip, design=dataclasses.replace(chip.design, core_count=16))
    assert "simulated-inference" not in Timer(chip=other).time(rows).basis


def test_the_hash_of_a_shape_decides_what_may_be_fitted():
    key = table("gemm", "bfloat16", m=128, n=4096, k=512).keys()[0]
    assert key == "gemm|bfloat16|m=128,n=4096,k=512"
    assert share_of_hash(key) == pytest.approx(0.9437, abs=1e-3) or 0 <= share_of_hash(key) < 1
    assert FIT_BELOW < CHECK_BELOW < 1


def test_parameters_that_ship_say_what_they_were_fitted_to_and_survive_their_file():
    for name, kept in parameters.shipped().items():
        assert kept.note and kept.framework not in measured.KEPT_FRAMEWORKS
        if kept.framework != parameters.SIMULATED:
            campaign = measured.campaigns()[name]
            assert campaign.system not in measured.KEPT_SYSTEMS and campaign.chip == kept.chip
        assert set(kept.rows_sha256) == set(kept.fitted)
        assert parameters.written(parameters.read(parameters.written(kept), "x")) == parameters.written(kept)


def test_a_step_is_the_sum_of_its_operators_and_grows_with_batch_and_context():
    def seconds(**changes):
        asked = {"model": step.model_called("llama-3.1-70b"), "batch": 64, "context": 4096, "tp": 8}
        return step.answer(step.Step(**(asked | changes)), H100)

    base = seconds()
    assert base.seconds == pytest.approx(sum(part.seconds for part in base.parts))
    assert base.low < base.seconds < base.high and base.tokens_per_s == pytest.approx(64 / base.seconds)
    assert base.usd_per_million_tokens > 0 and base.joules_per_token > 0
    assert base.seconds < seconds(batch=128).seconds and base.seconds < seconds(context=8192).seconds
    with pytest.raises(ModelError) as caught:
        seconds(tp=7)
    assert str(caught.value) == "llama-3.1-70b has 64 heads, which do not divide over --tp 7"


@pytest.mark.skipif(measured.package_folder() is None, reason="aiconfigurator-core and pyarrow are not installed")
def test_no_row_kept_for_judging_is_ever_read():
    campaign = measured.campaigns()["b60-vllm-0.20.0"]
    few = dataclasses.replace(campaign, tables={"collectives": campaign.tables["collectives"]})
    for rows in measured.tables_of(few):
        shares = [share_of_hash(key) for key in rows.keys()]  # noqa: SIM118 (a table is no dictionary)
        assert max(shares) < CHECK_BELOW
        fitted, check, unseen = measured.split(rows)
        assert len(fitted) + len(check) + len(unseen) <= len(rows)
        assert all(share_of_hash(key) < FIT_BELOW for key in fitted.keys())  # noqa: SIM118
    kept = dataclasses.replace(campaign, framework="SGLang")
    with pytest.raises(ModelError):
        list(measured.tables_of(kept))
