"""torch.compile for the chip: right, without the host's help, forward and backward, user's kernels included."""

import pytest
import torch
import triton
import triton.language as tl

from tapeout.pytorch import ledger


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


def randn(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype)


CASES = {
    "softmax": (lambda x, y: torch.softmax(x + y, -1), randn(64, 300), randn(64, 300)),
    "softmax of rows longer than a tile": (lambda x: torch.softmax(x, -1), randn(40, 9000)),
    "layer norm": (lambda x: torch.nn.functional.layer_norm(x, (576,)), randn(32, 576)),
    "gelu": (lambda x: torch.nn.functional.gelu(x) * 2, randn(33, 577)),
    "sum of rows": (lambda x: x.sum(0), randn(33, 577)),
    "transpose": (lambda x, y: x.t() + y, randn(129, 65), randn(65, 129)),
    "linear": (lambda x, y, b: torch.relu(x @ y + b), randn(40, 50), randn(50, 60), randn(60)),
    "rows by index": (lambda x, i: x[i] * 2, randn(64, 301), torch.randint(0, 64, (7,))),
    "where": (lambda x: torch.where(x > 0, x, torch.sin(x)), randn(64, 300)),
    "concatenate": (lambda x, y: torch.cat([x, y], 1) + 1, randn(64, 30), randn(64, 20)),
    "argmax": (lambda x: x.argmax(-1), randn(64, 300)),
    "cumulative sum": (lambda x: x.cumsum(-1), randn(64, 300)),
    "gradient of windows over the edge": (
        lambda g, x: torch.ops.aten.avg_pool2d_backward(g, x, [3, 3], [2, 2], [1, 1], True, True, None),
        randn(1, 2, 5, 5),
        randn(1, 2, 8, 8),
    ),
    "bags and a last offset": (
        lambda i, o, x: torch.nn.functional.embedding_bag(i, x, o, mode="sum", include_last_offset=True),
        torch.tensor([1, 2, 4, 5]),
        torch.tensor([0, 3, 4]),
        randn(9, 4),
    ),
    "first places that are not zero": (
        lambda x: torch.nonzero_static(x, size=4),
        torch.tensor([[0, 3], [1, 1]]),
    ),
    "fill": (lambda x: x + torch.zeros_like(x).index_fill(0, torch.tensor([1], device=x.device), 3.0), randn(4, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_compiled_code_agrees_with_the_cpu(name):
    function, *arguments = CASES[name]
    expected = function(*arguments)
    on_chip = [argument.to("chip") for argument in arguments]
    ledger.reset()
    found = torch.compile(function, dynamic=False)(*on_chip)
    assert ledger.snapshot().on_host == {}
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("option", ["benchmark_kernel", "benchmark_fusion", "combo_kernels"])
def test_options_that_time_or_join_kernels(option):
    def function(x):
        return torch.cat([x.sin(), x[:, :7].cos().exp().sum(1, keepdim=True)], 1).relu()

    x = torch.randn(16, 24)
    with torch._inductor.config.patch({option: True, "fx_graph_cache": False}):
        got = torch.compile(function)(x.to("chip"))
    torch.testing.assert_close(got.cpu(), function(x))


def test_shapes_may_change():
    function = torch.compile(lambda x: torch.softmax(x * 2, -1), dynamic=True)
    for rows, columns in ((3, 70), (5, 33), (64, 129)):
        values = torch.randn(rows, columns)
        torch.testing.assert_close(function(values.to("chip")).cpu(), torch.softmax(values * 2, -1))


def test_bfloat16():
    values = randn(64, 300, dtype=torch.bfloat16)
    found = torch.compile(lambda x: torch.softmax(x, -1))(values.to("chip"))
    torch.testing.assert_close(found.cpu(), torch.softmax(values, -1), rtol=1e-2, atol=1e-3)


def test_gradients_agree_with_the_cpu():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(20, 30), torch.nn.GELU(), torch.nn.LayerNorm(30), torch.nn.Linear(30, 5)
    )
    values = torch.randn(8, 20)
    model(values).pow(2).mean().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    model.to("chip")
    torch.compile(model)(values.to("chip")).pow(2).mean().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad.cpu(), gradient, rtol=1e-4, atol=1e-5)


@triton.jit
def double_kernel(source, out, size, TILE: tl.constexpr):
    place = tl.program_id(0) * TILE + tl.arange(0, TILE)
    tl.store(out + place, 2 * tl.load(source + place, mask=place < size), mask=place < size)


def test_a_users_kernel_inside_compiled_code():
    def function(x):
        out = torch.empty_like(x)
        double_kernel[(triton.cdiv(x.numel(), 128),)](x, out, x.numel(), TILE=128)
        return out + 1

    values = torch.randn(1000)
    torch.testing.assert_close(torch.compile(function, fullgraph=True)(values.to("chip")).cpu(), 2 * values + 1)


def test_the_cpu_still_compiles_to_cpp():
    values = torch.randn(10)
    code = torch._inductor.utils.run_and_get_code(torch.compile(lambda x: x.sin() + 1), values)[1]
    assert "cpp" in code[0] and "triton_" not in code[0]


def test_how_a_node_may_be_tiled_is_worked_out_once(monkeypatch):
    """However many pairs of nodes Inductor tries to fuse."""
    from torch._inductor.codegen.simd import SIMDScheduling

    asked = []
    everywhere_else = SIMDScheduling.candidate_tilings

    def candidate_tilings(cls, node, *numels):
        asked.append((node.get_name(), tuple(node.read_writes.reads_and_writes()), *numels))
        return everywhere_else(node, *numels)

    monkeypatch.setattr(SIMDScheduling, "candidate_tilings", classmethod(candidate_tilings))
    x = torch.randn(6, 10)

    def outer(x):
        return [x + number if number % 2 else (x * number).t() for number in range(3, 13)]

    with torch._inductor.config.patch(force_disable_caches=True):  # or nothing is asked of a graph that is known
        compiled = torch.compile(outer)(x.to("chip"))
    for found, expected in zip(compiled, outer(x), strict=True):
        torch.testing.assert_close(found.cpu(), expected)
    assert len(asked) >= 10
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_convolutions_lie_in_memory_as_inductor_expects(form, groups, with_gradient):
    """Inductor may lay images out with channels last, and checks what it gets."""

    def results(device):
        torch.manual_seed(0)
        image = torch.randn(2, 4, 6, 6).to(device).contiguous(memory_format=form).requires_grad_(with_gradient)
        filters = torch.randn(8, 4 // groups, 3, 3).to(device).requires_grad_(with_gradient)

        def network(image, filters):
            out = torch.nn.functional.conv2d(image, filters, padding=1, groups=groups).relu()
            return torch.nn.functional.conv_transpose2d(out, filters, groups=groups)

        with torch._inductor.config.patch(force_layout_optimization=True):
            out = (torch.compile(network) if device == "chip" else network)(image, filters)
        return [out, *(torch.autograd.grad(out.square().sum(), [image, filters]) if with_gradient else ())]

    for chip, cpu in zip(results("chip"), results("cpu"), strict=True):
        torch.testing.assert_close(chip.cpu(), cpu, rtol=1e-4, atol=1e-3)


def test_generated_cpp_is_refused_by_name():
    """AOTInductor and cpp_wrapper launch kernels from C++ that Inductor writes, which knows no chip."""
    sentence = r"AOTInductor, or cpp_wrapper=True, for the chip is not supported; torch\.export\.save keeps the program"
    torch._dynamo.reset()
    with torch._inductor.config.patch(cpp_wrapper=True), pytest.raises(Exception, match=sentence):
        torch.compile(torch.nn.functional.gelu)(torch.ones(3, device="chip"))
