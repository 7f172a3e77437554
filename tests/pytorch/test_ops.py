"""aten operators on the chip agree with the CPU's: values, shape, dtype and strides, without the host's help."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from tapeout.pytorch import ledger

INF, NAN = float("inf"), float("nan")


def values(*shape):
    return torch.randn(*shape)


def integers(*shape):
    return torch.randint(-5, 5, shape)


def gradient(x, function):
    """Of the sum of the results, each times its number."""
    x.requires_grad_()
    result = function(x)
    weights = torch.arange(result.numel(), dtype=result.dtype).reshape(result.shape)
    return torch.autograd.grad(result, x, weights.to(result.device))[0]


CASES = {
    "add": lambda d: values(3, 5).to(d) + values(5).to(d),
    "add a number": lambda d: values(3, 5).to(d) + 2,
    "add scaled": lambda d: torch.add(values(3, 5).to(d), values(3, 5).to(d), alpha=0.5),
    "subtract from": lambda d: 1 - values(3, 5).to(d),
    "multiply bfloat16": lambda d: values(3, 500).to(d, torch.bfloat16) * values(3, 1).to(d, torch.bfloat16),
    "multiply mixed": lambda d: values(3, 5).to(d) * integers(3, 5).to(d),
    "divide integers": lambda d: integers(3, 5).to(d) / integers(5).to(d).abs().add(1),
    "transposed": lambda d: values(30, 50).to(d).t() + values(50, 30).to(d),
    "five dimensions": lambda d: values(2, 3, 4, 5, 6).to(d).permute(4, 2, 0, 1, 3) * values(6, 4, 2, 3, 5).to(d),
    "compare": lambda d: (values(10, 10).to(d) > 0) | (integers(10, 10).to(d) == 3),
    "compare a number": lambda d: integers(10).to(d) <= 2,
    "not": lambda d: ~(values(9).to(d) > 0),
    "bits": lambda d: (~integers(9).to(d)) ^ (integers(9).to(d) & 6),
    "where": lambda d: torch.where(values(3, 4).to(d) > 0, values(3, 4).to(d), values(1, 4).to(d)),
    "where a number": lambda d: torch.where(integers(5).to(d) > 0, 1.0, values(5).to(d)),
    "masked fill": lambda d: values(3, 4).to(d).masked_fill(values(3, 4).to(d) > 0, -1e9),
    "exp": lambda d: values(100).to(d).exp(),
    "log": lambda d: values(100).to(d).abs().log(),
    "silu bfloat16": lambda d: torch.nn.functional.silu(values(100).to(d, torch.bfloat16)),
    "rsqrt": lambda d: values(100).to(d).abs().rsqrt(),
    "square": lambda d: values(100).to(d).pow(2),
    "sin": lambda d: (values(100).to(d) * 10).sin(),
    "cos": lambda d: (values(100).to(d) * 10).cos(),
    "tanh": lambda d: values(100).to(d).tanh(),
    "sigmoid": lambda d: values(100).to(d).sigmoid(),
    "erf": lambda d: values(100).to(d).erf(),
    "gelu": lambda d: torch.nn.functional.gelu(values(100).to(d)),
    "gelu by tanh": lambda d: torch.nn.functional.gelu(values(100).to(d), approximate="tanh"),
    "relu": lambda d: torch.relu(values(100).to(d)),
    "clamp": lambda d: values(100).to(d).clamp(-0.5, 0.5),
    "minus infinity": lambda d: torch.isneginf(torch.tensor([1.0, -INF]).to(d)),
    "lower triangle": lambda d: values(4, 4).to(d).tril(),
    "upper triangle": lambda d: values(4, 5).to(d).triu(1),
    "sum": lambda d: values(33, 77).to(d).sum(),
    "sum of rows": lambda d: values(33, 77).to(d).sum(0),
    "sum over two": lambda d: values(33, 77, 5).to(d).sum((0, 2)),
    "sum of integers": lambda d: integers(33, 77).to(d).sum(),
    "mean": lambda d: values(33, 5777).to(d).mean(-1, keepdim=True),
    "largest": lambda d: values(33, 77).to(d).amax(1),
    "any": lambda d: (values(33, 7).to(d) > 2).any(1),
    "all": lambda d: (values(33, 7).to(d) > -2).all(),
    "argmax": lambda d: values(33, 7777).to(d).argmax(-1),
    "argmax of equals": lambda d: integers(33, 777).to(d).argmax(-1),
    "argmax with NaN": lambda d: torch.tensor([1.0, NAN, 3.0]).to(d).argmax(),
    "max and its index": lambda d: values(33, 77).to(d).max(1),
    "max": lambda d: values(33, 77).to(d).max(),
    "max with NaN": lambda d: torch.tensor([1.0, NAN, 3.0]).to(d).max(),
    "softmax": lambda d: values(33, 77).to(d).softmax(-1),
    "softmax of columns": lambda d: values(33, 77).to(d).softmax(0),
    "softmax bfloat16": lambda d: values(33, 77).to(d, torch.bfloat16).softmax(-1),
    "log softmax": lambda d: values(33, 77).to(d).log_softmax(-1),
    "layer norm": lambda d: torch.nn.functional.layer_norm(values(8, 3, 70).to(d), (3, 70), values(3, 70).to(d)),
    "layer norm bfloat16": lambda d: F.layer_norm(values(8, 70).to(d, torch.bfloat16), (70,)),
    "sum of one long row": lambda d: integers(200_003).to(d).sum(),
    "mean of long columns": lambda d: values(30_001, 3).to(d).mean(0),
    "largest of a long row with NaN": lambda d: torch.cat([values(150_000), torch.tensor([NAN])]).to(d).amax(),
    "argmax of minus infinity": lambda d: torch.full((3, 700), -INF).to(d).argmax(-1),
    "times a column": lambda d: values(33, 77).to(d) * values(33, 1).to(d),
    "a column everywhere": lambda d: values(33, 1).to(d).expand(33, 77).contiguous(),
    "cumulative sum": lambda d: integers(3, 77).to(d).cumsum(-1),
    "concatenate": lambda d: torch.cat([values(3, 4).to(d), values(3, 9).to(d)], -1),
    "concatenate rows": lambda d: torch.cat([integers(3, 4).to(d), integers(9, 4).to(d)]),
    "rows by index": lambda d: values(33, 77).to(d)[torch.tensor([[3, -1], [0, 32]]).to(d)],
    "embedding": lambda d: torch.nn.functional.embedding(torch.arange(12).view(3, 4).to(d), values(33, 77).to(d)),
    "rows by an index of the host": lambda d: values(33, 77).to(d)[:, torch.tensor([3, -1])],
    "rows by a mask of the host": lambda d: values(4, 77).to(d)[torch.tensor([True, False, False, True])],
    "copy rows in": lambda d: torch.zeros(2, 3, 9, 4, device=d).index_copy_(
        2, torch.tensor([5, 1]).to(d), values(2, 3, 2, 4).to(d)
    ),
    "range": lambda d: torch.arange(3, 50, 2, device=d),
    "range of floats": lambda d: torch.arange(0, 5, 0.5, device=d),
    "kaiser window": lambda d: torch.kaiser_window(9, device=d),
    "kaiser window, symmetric": lambda d: torch.kaiser_window(9, False, 3.0, dtype=torch.float64, device=d),
    "zeta of a number": lambda d: torch.special.zeta(2.0, values(5).abs().add(1).to(d)),
    "membership": lambda d: torch.isin(integers(50).to(d), torch.tensor([1, 3]).to(d)),
    "casts": lambda d: values(33, 77).to(d).to(torch.bfloat16).to(torch.float32),
    "cast to integers": lambda d: (values(50).to(d) * 10).to(torch.int32),
    "cast to bool": lambda d: integers(50).to(d).bool(),
    "contiguous": lambda d: values(3, 4, 5).to(d).permute(2, 0, 1).contiguous(),
    "zeros": lambda d: torch.zeros(5, 5, device=d),
    "full": lambda d: torch.full((3,), 7, device=d),
    "times a CPU number": lambda d: values(4).to(d) * torch.tensor(2.0),
    "in place": lambda d: values(4).to(d).add_(1).mul_(2),
    "float64": lambda d: values(4).to(d, torch.float64) * 2,
    "float16": lambda d: values(400).to(d, torch.float16).exp(),
    "bytes wrap": lambda d: integers(40).abs().to(torch.uint8).to(d) + 250,
    "signed bytes wrap": lambda d: integers(40).to(torch.int8).to(d) * 30,
    "repeat": lambda d: values(3, 4).to(d).repeat(2, 3),
    "conv1d": lambda d: F.conv1d(values(2, 4, 30).to(d), values(6, 4, 5).to(d), values(6).to(d), padding=2),
    "conv2d": lambda d: F.conv2d(values(2, 4, 9, 10).to(d), values(6, 4, 3, 2).to(d), stride=2, padding=(1, 0)),
    "conv2d of groups": lambda d: F.conv2d(values(2, 4, 9, 10).to(d), values(6, 2, 3, 3).to(d), groups=2, dilation=2),
    "transposed conv2d": lambda d: F.conv_transpose2d(
        values(2, 4, 5, 6).to(d), values(4, 3, 3, 3).to(d), stride=2, padding=1, output_padding=1
    ),
    "sort": lambda d: integers(5, 77).to(d).sort(dim=0, descending=True, stable=True),
    "sort long rows": lambda d: values(2, 1500).to(d).sort(),
    "sort of doubles": lambda d: values(300).to(d, torch.float64).sort(),
    "sort puts NaN last": lambda d: torch.tensor([1.0, NAN, -0.0, 0.0, -INF]).to(d).sort(stable=True),
    "top k": lambda d: values(4, 100).to(d).topk(7),
    "where not zero": lambda d: (values(7, 9).to(d) > 0).nonzero(),
    "masked select": lambda d: values(7, 9).to(d)[integers(7, 9).to(d) > 0],
    "index by two": lambda d: values(7, 9).to(d)[torch.tensor([1, 2]).to(d), torch.tensor([-1, 3]).to(d)],
    "put": lambda d: (
        torch.zeros(4, 3).to(d).index_put_((torch.tensor([1, 1, 2]).to(d),), values(3, 3).to(d), accumulate=True)
    ),
    "gather": lambda d: values(7, 9).to(d).gather(1, torch.tensor([[1], [8]] * 3).to(d)),
    "scatter and add": lambda d: torch.zeros(7, 9).to(d).scatter_add(0, integers(4, 9).abs().to(d), values(4, 9).to(d)),
    "bags": lambda d: F.embedding_bag(
        torch.arange(12).to(d), values(33, 77).to(d), torch.tensor([0, 3, 3]).to(d), mode="mean"
    ),
    "group norm": lambda d: F.group_norm(values(2, 6, 5, 5).to(d), 3, values(6).to(d), values(6).to(d)),
    "rms norm": lambda d: F.rms_norm(values(5, 64).to(d), (64,), values(64).to(d)),
    "cross entropy": lambda d: F.cross_entropy(values(9, 20).to(d), torch.arange(9).to(d), label_smoothing=0.1),
    "cross entropy with a logit": lambda d: F.binary_cross_entropy_with_logits(values(9).to(d), values(9).to(d)),
    "max pool": lambda d: F.max_pool2d(values(2, 3, 8, 8).to(d), 2),
    "average pool": lambda d: F.avg_pool2d(values(2, 3, 8, 8).to(d), 2),
    "nearest neighbours": lambda d: F.interpolate(values(2, 3, 4, 4).to(d), scale_factor=2),
    "remainder by a number": lambda d: integers(30).to(d) % 4,
    "cumulative maximum": lambda d: integers(5, 9).to(d).cummax(1),
    "sum of products of a batch": lambda d: torch.addbmm(
        values(3, 5).to(d), values(2, 3, 4).to(d), values(2, 4, 5).to(d)
    ),
    "distances": lambda d: torch.cdist(values(3, 5).to(d), values(4, 5).to(d), p=3),
    "sign of a number": lambda d: torch.copysign(values(9).to(d), -1.0),
    "histogram": lambda d: torch.tensor([0.5, 1, 1, 2.5, 3, 9, -1]).to(d).histc(4, 0, 3),
    "histogram over its own range": lambda d: values(90).to(d).histc(7),
    "places of a triangle": lambda d: torch.tril_indices(4, 5, -1, device=d),
    "digamma": lambda d: torch.tensor([-3.5, -0.1, 0.0, 0.3, 1.46, 30.0, -2.0]).to(d).digamma(),
    "quantile of the normal distribution": lambda d: torch.special.ndtri(
        torch.tensor([0, 1e-9, 0.3, 0.5, 0.999, 1, 2]).to(d)
    ),
    "batch norm that keeps statistics": lambda d: torch._native_batch_norm_legit(
        values(4, 3, 5).to(d), None, None, torch.zeros(3).to(d), torch.ones(3).to(d), True, 0.5, 1e-5
    ),
    "cumulative product": lambda d: values(5, 9).to(d).cumprod(0),
    "cumulative product in its own type": lambda d: integers(2, 5).int().to(d).cumprod(1, dtype=torch.int32),
    "variance": lambda d: values(5, 90).to(d).var(1),
    "norm": lambda d: torch.linalg.vector_norm(values(50).to(d)),
    "in place of its argument": lambda d: values(50).to(d).tan_(),
    "into a given tensor": lambda d: torch.atan2(values(5).to(d), values(5).to(d), out=torch.empty(0, device=d)),
    "product of float64": lambda d: values(5, 7).double().to(d) @ values(7, 3).double().to(d),
    "product of integers": lambda d: torch.addmm(integers(3).to(d), integers(5, 7).to(d), integers(7, 3).to(d), beta=2),
    "largest into places": lambda d: (
        values(4, 6)
        .to(d)
        .scatter_reduce(1, integers(3, 9).abs().to(d) % 6, values(4, 9).to(d), "amax", include_self=False)
    ),
    "mean into places": lambda d: (
        values(4, 6).to(d).scatter_reduce(0, integers(3, 6).abs().to(d) % 4, values(3, 6).to(d), "mean")
    ),
    "add bfloat16 into places": lambda d: (
        values(4, 6)
        .to(d, torch.bfloat16)
        .index_add(1, torch.tensor([5, 2, 2, 0]).to(d), values(4, 4).to(d, torch.bfloat16), alpha=2)
    ),
    "gradient of nearest by a factor": lambda d: gradient(
        values(2, 8, 7).to(d)[None], lambda x: torch.nn.functional.interpolate(x, scale_factor=1.7)
    ),
    "gradient of windows over the edge": lambda d: torch.ops.aten.avg_pool3d_backward(
        values(1, 2, 5, 5, 5).to(d), values(1, 2, 8, 8, 8).to(d), [3], [2], [1], True, True, None
    ),
    "gradient of softshrink": lambda d: gradient(values(9).to(d), torch.nn.functional.softshrink),
    "distances of pairs": lambda d: gradient(values(6, 4).to(d), torch.nn.functional.pdist),
    "unsigned words": lambda d: (
        torch.tensor([1, -1, 2**40 + 5]).to(d).to(torch.uint32).view(torch.int32),
        torch.full((3,), 2**32 - 1, dtype=torch.uint32, device=d).view(torch.int32),
    ),
    "nothing": lambda d: torch.empty(0, 3).to(d) + 1,
    "sum of products of integers": lambda d: torch.addbmm(
        integers(2, 5).int().to(d), integers(3, 2, 4).int().to(d), integers(3, 4, 5).int().to(d)
    ),
    "sums of truths": lambda d: tuple(
        torch.add(torch.tensor([True, False]).to(d)[:, None], torch.tensor([True, False]).to(d), alpha=alpha)
        for alpha in (True, False)
    ),
    "extremes of truths": lambda d: (
        torch.tensor([True, False]).to(d).max(),
        torch.tensor([[True, False]]).to(d).amin(0),
    ),
}
RELATIVE = {torch.bfloat16: 1e-2, torch.float16: 2e-3}
ABSOLUTE = {torch.bfloat16: 1e-2, torch.float16: 1e-3}


@pytest.mark.parametrize("name", CASES)
def test_operator(name):
    torch.manual_seed(1)
    expected = CASES[name]("cpu")
    ledger.reset()
    torch.manual_seed(1)
    found = CASES[name]("chip")
    assert ledger.snapshot().on_host == {}
    as_tuple = (lambda result: tuple(result)) if isinstance(expected, tuple) else (lambda result: (result,))
    for one, other in zip(as_tuple(found), as_tuple(expected), strict=True):
        assert one.device.type == "chip" and one.stride() == other.stride()
        torch.testing.assert_close(
            one.cpu(),
            other,
            rtol=RELATIVE.get(other.dtype, 1e-5),
            atol=ABSOLUTE.get(other.dtype, 2e-6),
            equal_nan=True,
        )


# Rounding of one product of K terms in float32; the half types round the result once.
TOLERANCE = {torch.float32: 4e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "rows, inner, columns",
    [(1, 64, 64), (1, 576, 130), (5, 70, 33), (64, 64, 64), (100, 130, 200), (3, 0, 4), (0, 3, 3)],
)
def test_matrix_products(dtype, rows, inner, columns):
    torch.manual_seed(0)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    left, right, bias = (torch.randn(*s).to(dtype) for s in ((rows, inner), (inner, columns), (columns,)))
    product = left.float() @ right.float()
    for left_turned, right_turned in itertools.product((False, True), repeat=2):
        a = left.t().contiguous().to("chip").t() if left_turned else left.to("chip")
        b = right.t().contiguous().to("chip").t() if right_turned else right.to("chip")
        torch.testing.assert_close((a @ b).cpu().float(), product, **tolerance)
    a, b, c = left.to("chip"), right.to("chip"), bias.to("chip")
    torch.testing.assert_close(torch.addmm(c, a, b).cpu().float(), product + bias.float(), **tolerance)
    scaled = torch.addmm(c, a, b, alpha=0.5, beta=2)
    torch.testing.assert_close(scaled.cpu().float(), 0.5 * product + 2 * bias.float(), **tolerance)
    batch = torch.bmm(a.expand(3, -1, -1), b.expand(3, -1, -1))
    torch.testing.assert_close(batch.cpu().float(), product.expand(3, -1, -1), **tolerance)
    shifted = torch.baddbmm(torch.ones(1, 1, columns, dtype=dtype, device="chip"), a[None], b[None])
    torch.testing.assert_close(shifted.cpu().float()[0], product + 1, **tolerance)


@pytest.mark.parametrize("columns", [1024, 3000])
def test_layer_norm_of_rows_far_from_zero(columns):
    """Their mean is a hundred thousand deviations; a mean of squares less the mean's square would lose them."""
    torch.manual_seed(0)
    rows = 1e5 + torch.randn(4, columns)
    expected = F.layer_norm(rows.double(), (columns,)).float()
    # A mean in float32 is off by half a unit in its last place (2**-8 here) and what its sum was rounded to before.
    torch.testing.assert_close(F.layer_norm(rows.to("chip"), (columns,)).cpu(), expected, rtol=1e-4, atol=2**-6)
    same = torch.full((4, columns), 100.0)
    assert F.layer_norm(same.to("chip"), (columns,)).count_nonzero() == 0


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_any_length(mode):
    """Empty ones and such as end within a step of the kernel, in rows that are no power of two; with their gradient."""
    torch.manual_seed(0)
    lengths = torch.tensor([0, 1, 2, 3, 4, 5, 0, 9, 17, 1])
    ends = lengths.cumsum(0)
    rows = torch.randint(0, 50, (int(ends[-1]),))
    table = torch.randn(50, 77)
    results = {}
    for place in ("cpu", "chip"):
        weights = table.to(place, copy=True).detach().requires_grad_()
        bags = F.embedding_bag(rows.to(place), weights, (ends - lengths).to(place), mode=mode, padding_idx=3)
        bags.square().sum().backward()
        results[place] = (bags.detach().cpu(), weights.grad.cpu())
    torch.testing.assert_close(results["chip"], results["cpu"], rtol=1e-5, atol=1e-5)


def test_slice_assignment_writes_the_slice_only():
    target = torch.zeros(3, 4, device="chip")
    target[1:, ::2] = torch.ones(2, 2, device="chip")
    assert target.tolist() == [[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]]


def test_operators_on_the_chip_are_counted():
    a = torch.ones(2, 2, device="chip")
    ledger.reset()
    torch.exp(a + a @ a)
    assert ledger.snapshot().on_chip == {"aten::mm": 1, "aten::add": 1, "aten::exp": 1}


def test_a_gradient_known_to_be_zero():
    values = torch.tensor([-2.0, 0.0, 3.0]).to("chip").requires_grad_()
    values.sgn().sum().backward()
    assert values.grad.tolist() == [0, 0, 0]


def test_equal_is_about_shape_and_elements():
    ledger.reset()
    ones = torch.ones(2, 3, device="chip")
    assert torch.equal(ones, torch.ones(2, 3).to("chip"))
    assert not torch.equal(ones, torch.ones(3, 2).to("chip"))
    assert not torch.equal(ones, torch.zeros(2, 3).to("chip"))
    assert ledger.snapshot().on_host == {}


@pytest.mark.parametrize("cell", [torch.nn.LSTM, torch.nn.GRU], ids=lambda cell: cell.__name__)
def test_recurrent_networks_train_on_the_chip(cell):
    torch.manual_seed(3)
    network, steps = cell(5, 7), torch.randn(3, 2, 5)
    network(steps)[0].square().sum().backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    ledger.reset()
    network = network.to("chip")
    network.zero_grad()
    network(steps.to("chip"))[0].square().sum().backward()
    assert ledger.snapshot().on_host == {}
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad.cpu(), gradient, rtol=1e-4, atol=1e-5)


def test_reducing_a_scalar():
    value = torch.tensor(3.0, device="chip")
    assert value.sum().item() == value.mean().item() == value.amax().item() == 3.0
    for dim in (0, -1):  # torch lets a number be reduced along a dimension it has not
        assert value.sum(dim).item() == value.mean(dim).item() == value.amax(dim, keepdim=True).item() == 3.0
        assert value.amax(dim, keepdim=True).shape == () and value.any(dim).item()


@pytest.mark.parametrize("transposed", [False, True])
def test_convolution_of_doubles_is_the_hosts(transposed):
    def convolve(device):
        input, weight, bias = (values(*shape).double() for shape in ((2, 4, 7), (4, 2, 3), (4,)))
        function = torch.nn.functional.conv_transpose1d if transposed else torch.nn.functional.conv1d
        given = [tensor.to(device).requires_grad_() for tensor in (input, weight, bias)]
        result = function(*given, stride=2, groups=2)
        return [result, *torch.autograd.grad(result.sum(), given)]

    torch.manual_seed(1)
    expected = convolve("cpu")
    torch.manual_seed(1)
    ledger.reset()
    found = convolve("chip")
    assert set(ledger.snapshot().on_host) == {"aten::convolution", "aten::convolution_backward"}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other)


def test_a_difference_of_truth_values_is_refused():
    truth = torch.tensor([True, False], device="chip")
    for subtract in (torch.sub, torch.rsub):
        with pytest.raises(RuntimeError, match="two bool tensors is not supported"):
            subtract(truth, truth)


@pytest.mark.parametrize("arguments", [{}, {"dim": []}, {"dim": [0], "keepdim": True}, {"dim": [1]}])
def test_variance_and_mean_of_nothing_are_not_a_number(arguments):
    x = torch.empty(0, 3)
    for function in (torch.var_mean, torch.std_mean):
        for got, expected in zip(function(x.to("chip"), **arguments), function(x, **arguments), strict=True):
            assert torch.equal(got.cpu().isnan(), expected.isnan()) and got.shape == expected.shape
