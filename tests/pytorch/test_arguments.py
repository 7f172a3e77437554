"""What PyTorch refuses on the CPU is refused on the chip by the same error, and nothing is written."""

import pytest
import torch
import torch.nn.functional as F

from tapeout.workbench.scoreboard import operators


def ones(d, *shape, dtype=torch.float32):
    return torch.ones(*shape, dtype=dtype, device=d)


def mask(d, *shape):
    return ones(d, *shape, dtype=torch.bool)


def places(d, *values):
    return torch.tensor(values, device=d)


def assigned(target, index, value):
    target[index] = value


def into(target, function, *arguments, **options):
    return function(*arguments, **options, out=target)


# Each takes a device and a tensor on it that would be written: 0 to 19 in four rows.
REFUSED = {
    "a mask that does not broadcast": lambda d, x: x[0].masked_fill_(mask(d, 3), 1.0),
    "a mask of another number of rows": lambda d, x: x.masked_fill_(mask(d, 3, 1), 1.0),
    "a mask with more dimensions": lambda d, x: x.masked_fill_(mask(d, 2, 4, 5), 1.0),
    "a mask of bytes": lambda d, x: x.masked_fill_(ones(d, 4, 5, dtype=torch.uint8), 1.0),
    "a value that is no number": lambda d, x: x.masked_fill_(mask(d, 4, 5), ones(d, 1)),
    "an index that is a mask of another shape": lambda d, x: assigned(x, mask(d, 5), 1.0),
    "an index that is a mask of bytes": lambda d, x: x.index_put_((ones(d, 4, dtype=torch.uint8),), ones(d, 1)[0]),
    "values of another type": lambda d, x: x.index_put_((places(d, 1),), ones(d, 5, dtype=torch.float64)),
    "values of another shape": lambda d, x: x.index_put_((places(d, 1, 2),), ones(d, 3, 5)),
    "indices that do not broadcast": lambda d, x: x.index_put_((places(d, 1, 2), places(d, 1, 2, 3)), ones(d, 1)),
    "too many indices": lambda d, x: x[places(d, 0), places(d, 0), places(d, 0)],
    "an index of floats": lambda d, x: x[ones(d, 1)],
    "a copy that does not broadcast": lambda d, x: x[0].copy_(ones(d, 3)),
    "a copy of another number of rows": lambda d, x: x.copy_(ones(d, 3, 1)),
    "a copy from the host": lambda d, x: x.copy_(torch.ones(3, 1)),
    "a slice assigned another shape": lambda d, x: assigned(x, slice(1, 3), ones(d, 3, 5)),
    "a vector to fill with": lambda d, x: x.fill_(ones(d, 3)),
    "another normalised shape": lambda d, x: F.layer_norm(x, (4,)),
    "a normalised shape with more dimensions": lambda d, x: F.layer_norm(x, (2, 4, 5)),
    "a weight of another shape": lambda d, x: F.layer_norm(x, (5,), ones(d, 4)),
    "shapes that do not broadcast": lambda d, x: x + ones(d, 3, 5),
    "shapes that do not broadcast, in place": lambda d, x: x[:1].add_(x),
    "shapes that do not broadcast, in a list": lambda d, x: torch._foreach_add_([x], [ones(d, 3)]),
    "shapes that do not broadcast, of three": lambda d, x: torch.addcmul(x, x, ones(d, 4)),
    "shapes that do not broadcast, of where": lambda d, x: torch.where(x > 0, x, ones(d, 4)),
    "shapes that do not broadcast, of lerp": lambda d, x: torch.lerp(x, ones(d, 4), 0.5),
    "another type, of lerp": lambda d, x: torch.lerp(x, x.half(), 0.5),
    "truth values, of relu": lambda d, x: F.relu_(mask(d, 3)),
    "truth values, of abs": lambda d, x: into(x, torch.abs, mask(d, 4, 5)),
    "truth values, of floor": lambda d, x: torch.floor(mask(d, 3)),
    "truth values, of median": lambda d, x: mask(d, 3).median(),
    "truth values, of bincount": lambda d, x: torch.bincount(mask(d, 3)),
    "truth values, of the minus sign": lambda d, x: -mask(d, 3),
    "integers, of softmax": lambda d, x: torch.softmax(places(d, 1, 2), 0),
    "integers, of hypot": lambda d, x: torch.hypot(places(d, 3, 3), places(d, 4, 4)),
    "integers, of nextafter": lambda d, x: torch.nextafter(places(d, 3), places(d, 4)),
    "integers, of histc": lambda d, x: torch.histc(places(d, 3, 4)),
    "integers, of mean": lambda d, x: places(d, 3, 4).mean(),
    "integers, in a list": lambda d, x: torch._foreach_lerp_([places(d, 3)], [places(d, 4)], 0.5),
    "floats, of and": lambda d, x: x & x,
    "floats, of or with a number": lambda d, x: x.__ior__(1),
    "floats, of not": lambda d, x: into(x, torch.bitwise_not, x),
    "parts of other sizes": lambda d, x: torch.cat([x, ones(d, 2, 3)]),
    "parts of other ranks": lambda d, x: torch.cat([x, ones(d, 2, 3, 3)]),
    "parts to stack of other sizes": lambda d, x: torch.stack([x, ones(d, 4, 4)]),
    "a product of other sizes": lambda d, x: x @ ones(d, 4, 5),
    "a product of other types": lambda d, x: x @ ones(d, 5, 4, dtype=torch.float16),
    "a product of half and bfloat16": lambda d, x: x.half() @ ones(d, 5, 4, dtype=torch.bfloat16),
    "a linear layer of other sizes": lambda d, x: F.linear(x, ones(d, 3, 4)),
    "a linear layer of another type": lambda d, x: F.linear(x, ones(d, 3, 5, dtype=torch.float16)),
    "a linear layer with a bias of another type": lambda d, x: F.linear(x, ones(d, 3, 5), ones(d, 3).half()),
    "a sum and product of other sizes": lambda d, x: torch.addmm(ones(d, 3), x, ones(d, 5, 4)),
    "batches of other sizes": lambda d, x: torch.bmm(ones(d, 2, 3, 4), ones(d, 3, 4, 5)),
    "batches of other types": lambda d, x: torch.bmm(ones(d, 2, 3, 4), ones(d, 2, 4, 5).half()),
    "a sum and product of batches of other sizes": lambda d, x: torch.baddbmm(x, ones(d, 2, 3, 4), ones(d, 2, 4, 5)),
    "vectors of other lengths": lambda d, x: torch.dot(x[0], x[:, 0]),
    "vectors of other types": lambda d, x: torch.dot(x[0], x[0].double()),
    "channels of another number": lambda d, x: F.conv2d(ones(d, 1, 3, 5, 5), ones(d, 2, 4, 3, 3)),
    "a filter larger than the input": lambda d, x: F.conv2d(ones(d, 1, 3, 2, 2), ones(d, 2, 3, 3, 3)),
    "a filter of another type": lambda d, x: F.conv2d(ones(d, 1, 3, 5, 5), ones(d, 2, 3, 3, 3).half()),
    "statistics of another length": lambda d, x: F.batch_norm(x, ones(d, 4), ones(d, 4)),
    "groups that do not divide": lambda d, x: F.group_norm(x, 3),
    "a window larger than the input": lambda d, x: F.max_pool2d(x[None], 6),
    "targets of another number": lambda d, x: F.cross_entropy(x, places(d, 0, 1, 2)),
    "targets of floats": lambda d, x: F.nll_loss(x, ones(d, 4)),
    "an index with more dimensions": lambda d, x: x.gather(0, places(d, 0)),
    "an index longer than the input": lambda d, x: x.gather(0, torch.zeros(5, 6, dtype=torch.int64, device=d)),
    "an index of another type to scatter by": lambda d, x: x.scatter_(0, ones(d, 1, 5, dtype=torch.int32), x),
    "a source of another type to scatter": lambda d, x: x.scatter_(0, torch.zeros_like(x).long(), x.double()),
    "slices of another shape to add": lambda d, x: x.index_add_(0, places(d, 0, 1), ones(d, 3, 5)),
    "slices of another shape to copy": lambda d, x: x.index_copy_(0, places(d, 0, 1), ones(d, 2, 4)),
    "elements of another number to put": lambda d, x: x.put_(places(d, 0, 1), ones(d, 3)),
    "rows by an index of rows": lambda d, x: x.index_select(0, places(d, 0, 1)[None]),
    "a dimension there is not": lambda d, x: x.sum(2),
    "a view beyond the memory": lambda d, x: x.as_strided((21,), (1,)),
    "an output of integers": lambda d, x: into(ones(d, 4, 5, dtype=torch.int64), torch.exp, x),
    "an output that is the input, shifted": lambda d, x: into(x.view(-1)[1:], torch.add, x.view(-1)[:-1], 1),
    "an output that is the input, shifted, of a concatenation": lambda d, x: into(
        x.view(-1)[:10], torch.cat, [x.view(-1)[:5], x.view(-1)[5:10]]
    ),
    "a copy onto itself, shifted": lambda d, x: assigned(x.view(-1), slice(1, None), x.view(-1)[:-1]),
    "a copy onto itself, transposed": lambda d, x: (lambda y: y.copy_(y.t()))(x.view(-1)[:16].view(4, 4)),
    "an expanded tensor written": lambda d, x: x[:1].expand(4, 5).copy_(x),
    "an expanded tensor added to": lambda d, x: x[:1].expand(4, 5).add_(1),
    "an expanded tensor drawn": lambda d, x: x[:1].expand(4, 5).uniform_(),
    "an index out of range": lambda d, x: x[places(d, 0, 4)],
    "an index out of range of rows": lambda d, x: x.index_select(0, places(d, 4)),
    "a word out of range": lambda d, x: F.embedding(places(d, 4), x),
    "a word out of range, in a bag": lambda d, x: F.embedding_bag(places(d, 4), x, places(d, 0)),
    "an index out of range to gather by": lambda d, x: x.gather(0, torch.full_like(x, 4).long()),
    "a class out of range": lambda d, x: F.cross_entropy(x, places(d, 0, 1, 2, 7)),
    "bounds in disorder": lambda d, x: x.uniform_(3, -1),
    "fewer weights than samples": lambda d, x: x.multinomial(6),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_cpu_refuses_is_refused(name):
    errors = []
    for d in ("cpu", "chip"):
        target = torch.arange(20.0).view(4, 5).to(d)
        with pytest.raises((RuntimeError, IndexError, ValueError, TypeError)) as caught:
            REFUSED[name](d, target)
        errors.append(caught.value)
        assert target.tolist() == torch.arange(20.0).view(4, 5).tolist()
    assert type(errors[0]) is type(errors[1])
    assert str(errors[0]).splitlines()[0].replace("=cpu", "=chip") == str(errors[1]).splitlines()[0]


@pytest.mark.parametrize("part", range(4))
def test_arguments_that_pytorch_says_are_wrong(part):
    """Of every second operator in PyTorch's database, one call that it says must raise an error."""
    for name, op in sorted(operators.database().items())[part::8]:
        for call in operators.wrong_calls(op, 1)[:1]:
            case = operators.Case(name, "float32", "mutated")
            outcome = operators._judge_call(case, op, call)
            assert outcome is None or outcome.verdict is operators.Verdict.NATIVE, (name, outcome.cause)


# The first of each is on the chip, the second on the host.
OF_TWO_DEVICES = {
    "dot": torch.dot,
    "gather": lambda x, y: x.gather(0, y.long()),
    "scatter": lambda x, y: x.scatter(0, y.long(), 1.0),
    "index_put": lambda x, y: x.index_put_((torch.tensor([0, 1]),), y),
    "index of the host's": lambda x, y: y[x.long()],
    "searchsorted": torch.searchsorted,
    "isin": torch.isin,
    "cross entropy": lambda x, y: F.cross_entropy(x, y),
    "class": lambda x, y: F.cross_entropy(x, y[0].long()),
    "batch norm": lambda x, y: F.batch_norm(x.expand(3, 2), y, y),
    "linear": lambda x, y: F.linear(x, y[None]),
    "layer norm": lambda x, y: F.layer_norm(x, (2,), y),
    "embedding": lambda x, y: F.embedding(y.long(), x[None]),
    "concatenate": lambda x, y: torch.cat([x, y]),
    "add": torch.add,
    "into": lambda x, y: torch.exp(x, out=y),
    "mask": lambda x, y: x.masked_fill_(y > 0, 1.0),
    "optimizer": lambda x, y: x.addcdiv_(x, y),
    "convolution": lambda x, y: F.conv1d(x[None, None], y[None, None]),
    "attention": lambda x, y: F.scaled_dot_product_attention(x[None], y[None], y[None]),
}


@pytest.mark.parametrize("name", OF_TWO_DEVICES)
def test_tensors_of_the_host_are_refused_beside_the_chips(name):
    x, y = torch.ones(2).to("chip"), torch.ones(2)
    with pytest.raises(RuntimeError, match="device"):
        OF_TWO_DEVICES[name](x, y)
    assert x.tolist() == y.tolist() == [1, 1]


WITH_A_NUMBER = {
    "add": torch.add,
    "clamp": lambda x, n: x.clamp(min=n),
    "clamp both": lambda x, n: x.clamp(n, n + 1),
    "clamp in place": lambda x, n: x.clamp_(max=n),
    "addcdiv": lambda x, n: x.addcdiv(n, x + 1),
    "addcmul": lambda x, n: x.addcmul_(x, n),
    "lerp": lambda x, n: torch.lerp(x, x + 1, n),
    "where": lambda x, n: torch.where(x > 1, n, x),
    "maximum": torch.maximum,
    "atan2": torch.atan2,
    "power": torch.pow,
    "masked fill": lambda x, n: x.masked_fill(x > 1, n),
    "fill": lambda x, n: x.fill_(n),
    "index fill": lambda x, n: x.index_fill(0, torch.tensor([1], device=x.device), n),
    "index put": lambda x, n: x.index_put_((torch.tensor([1]),), n),
    "assignment": lambda x, n: assigned(x, 1, n) or x,
    "foreach": lambda x, n: torch._foreach_mul([x], n)[0],
    "isin": lambda x, n: torch.isin(x, 1.0),
}


@pytest.mark.parametrize("name", WITH_A_NUMBER)
def test_a_tensor_of_the_host_may_be_a_number(name):
    found, expected = (WITH_A_NUMBER[name](torch.arange(3.0).to(d), torch.tensor(1.5)) for d in ("chip", "cpu"))
    assert found.device.type == "chip"
    torch.testing.assert_close(found.cpu(), expected)
