"""scaled_dot_product_attention of every operand that torch takes, forward and backward, against torch's composition of
products and a softmax on the CPU; what torch refuses is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tapeout.pytorch import ledger

INF = float("inf")
QUERY, KEY = (2, 4, 4, 8), (2, 4, 6, 8)
FUSED = "aten::_scaled_dot_product_fused_attention_overrideable"


def padding(value, *shape):
    """A mask that leaves one query nothing, and one query half of the keys."""
    mask = torch.zeros(*(shape or (4, 6)))
    mask[..., 1, :] = value
    mask[..., 2, 3:] = value
    return mask


# Shapes of query, key and value, then what else is given.
TAKEN = {
    "as usual": (QUERY, KEY, KEY, {}),
    "keys and values of one batch": (QUERY, (1, 4, 6, 8), (1, 4, 6, 8), {}),
    "keys of one batch": (QUERY, (1, 4, 6, 8), KEY, {}),
    "values of one head": (QUERY, KEY, (2, 1, 6, 8), {}),
    "keys and values of one head": (QUERY, (2, 1, 6, 8), (2, 1, 6, 8), {}),
    "queries of one batch": ((1, 4, 4, 8), KEY, KEY, {}),
    "queries of one head": ((2, 1, 4, 8), KEY, KEY, {}),
    "groups of heads": (QUERY, (2, 2, 6, 8), (2, 2, 6, 8), {"enable_gqa": True}),
    "groups of heads that differ": (QUERY, (2, 2, 6, 8), (2, 1, 6, 8), {"enable_gqa": True}),
    "values of another size": (QUERY, KEY, (2, 4, 6, 5), {}),
    "a mask of the lowest number": (QUERY, KEY, KEY, {"attn_mask": padding(torch.finfo(torch.float32).min)}),
    "a mask of a very low number": (QUERY, KEY, KEY, {"attn_mask": padding(-1e38)}),
    "a mask of minus infinity": (QUERY, KEY, KEY, {"attn_mask": padding(-INF)}),
    "a mask of truths": (QUERY, KEY, KEY, {"attn_mask": padding(1.0) == 0}),
    "a mask for every key": (QUERY, KEY, KEY, {"attn_mask": torch.linspace(-1, 1, 6)[None]}),
    "a mask for every query": (QUERY, KEY, KEY, {"attn_mask": torch.linspace(-1, 1, 4)[:, None]}),
    "a mask for every head": (QUERY, KEY, KEY, {"attn_mask": torch.linspace(-1, 1, 96).view(4, 4, 6)}),
    "a mask for every batch": (QUERY, KEY, KEY, {"attn_mask": padding(-INF, 2, 1, 4, 6)}),
    "causal": (QUERY, KEY, KEY, {"is_causal": True}),
    "causal, more queries": ((2, 4, 9, 8), KEY, KEY, {"is_causal": True}),
    "a scale": (QUERY, KEY, KEY, {"scale": -0.3}),
    "three dimensions": ((2, 4, 8), (2, 6, 8), (2, 6, 8), {"attn_mask": padding(-INF)}),
    "two dimensions": ((4, 8), (6, 8), (6, 8), {}),
    "five dimensions": ((2, 2, 2, 4, 8), (2, 2, 2, 6, 8), (2, 2, 2, 6, 8), {}),
    "no keys": (QUERY, (2, 4, 0, 8), (2, 4, 0, 8), {}),
    "no queries": ((2, 4, 0, 8), KEY, KEY, {}),
    "vectors of no size": ((2, 4, 4, 0), (2, 4, 6, 0), KEY, {}),
}
REFUSED = {
    "fewer heads of keys": (QUERY, (2, 2, 6, 8), (2, 2, 6, 8), {}),
    "heads that do not divide": ((2, 3, 4, 8), (2, 2, 6, 8), (2, 2, 6, 8), {"enable_gqa": True}),
    "sizes that differ": (QUERY, (2, 4, 6, 7), KEY, {}),
    "lengths that differ": (QUERY, KEY, (2, 4, 5, 8), {}),
    "batches that differ": (QUERY, (3, 4, 6, 8), (3, 4, 6, 8), {}),
    "a mask that does not broadcast": (QUERY, KEY, KEY, {"attn_mask": torch.ones(3, 6)}),
    "a mask of five dimensions": (QUERY, KEY, KEY, {"attn_mask": torch.ones(1, 1, 1, 4, 6)}),
    "a mask of more batches": ((1, 4, 4, 8), (1, 4, 6, 8), (1, 4, 6, 8), {"attn_mask": torch.zeros(2, 1, 4, 6)}),
    "a mask of integers": (QUERY, KEY, KEY, {"attn_mask": torch.ones(4, 6, dtype=torch.int64)}),
    "one dimension": ((8,), (8,), (8,), {}),
}
TOLERANCES = {torch.float32: 2e-6, torch.float16: 5e-3, torch.bfloat16: 4e-2}
IN_HALF_TYPES = ("as usual", "keys of one batch", "groups of heads", "a mask of the lowest number", "a mask of truths")


def attend(d, query, key, value, options, dtype=torch.float32, function=F.scaled_dot_product_attention):
    """The result and the gradients of the operands."""
    torch.manual_seed(0)
    operands = [torch.randn(*shape).to(dtype).to(d).requires_grad_() for shape in (query, key, value)]
    given = dict(options)
    if "attn_mask" in given:
        mask = given["attn_mask"]
        lowest = torch.finfo(dtype).min
        mask = (
            torch.where(mask < lowest, torch.where(mask == -INF, mask, lowest), mask).to(dtype)
            if (mask.dtype == torch.float32)
            else mask
        )
        given["attn_mask"] = mask.to(d)
    result = function(*operands, **given)
    gradients = torch.autograd.grad(result.float().square().sum(), operands)
    return [tensor.detach().cpu() for tensor in (result, *gradients)]


def expected(*arguments):
    with sdpa_kernel(SDPBackend.MATH):
        return attend("cpu", *arguments)


@pytest.mark.parametrize(
    "name, dtype",
    [(name, torch.float32) for name in TAKEN]
    + [(n, d) for d in (torch.float16, torch.bfloat16) for n in IN_HALF_TYPES],
)
def test_attention_and_its_gradients(name, dtype):
    found = attend("chip", *TAKEN[name], dtype)
    for one, other in zip(found, expected(*TAKEN[name], dtype), strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


@pytest.mark.parametrize("name", ["keys of one batch", "a mask of the lowest number", "groups of heads"])
def test_compiled_attention(name):
    compiled = torch.compile(F.scaled_dot_product_attention, dynamic=False)
    found = attend("chip", *TAKEN[name], torch.float32, compiled)
    torch.testing.assert_close(found, expected(*TAKEN[name]), rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_operands_that_do_not_belong_together(name):
    with sdpa_kernel(SDPBackend.MATH), pytest.raises(RuntimeError) as of_cpu:
        attend("cpu", *REFUSED[name])
    with pytest.raises(RuntimeError) as of_chip:
        attend("chip", *REFUSED[name])
    assert str(of_chip.value) == str(of_cpu.value)


def test_dropout_keeps_what_it_does_not_drop():
    """Every value is one, so a result says what share of the weights was kept."""
    torch.manual_seed(0)
    query, key = (torch.zeros(1, 1, n, 8, device="chip") for n in (64, 256))
    kept = F.scaled_dot_product_attention(query, key, torch.ones_like(key), dropout_p=0.25)
    assert abs(kept.mean().item() - 1) < 0.02 and kept.std().item() > 0.01


def test_the_kernel_asked_for_is_taken():
    query, key = torch.randn(*QUERY).to("chip"), torch.randn(*KEY).to("chip")
    ran = {}
    for backend in (SDPBackend.MATH, SDPBackend.OVERRIDEABLE, SDPBackend.FLASH_ATTENTION):
        ledger.reset()
        with sdpa_kernel(backend):
            F.scaled_dot_product_attention(query, key, key)
        ran[backend] = FUSED in ledger.snapshot().on_chip
    assert list(ran.values()) == [False, True, True]
    with sdpa_kernel(SDPBackend.OVERRIDEABLE), pytest.raises(RuntimeError, match="No available kernel"):
        F.scaled_dot_product_attention(query, key, key, dropout_p=0.5)


def test_attention_under_vmap():
    query, key = torch.randn(3, *QUERY), torch.randn(3, *KEY)
    for dims in ((0, 0, 0), (0, None, None)):
        keys = key if dims[1] == 0 else key[0]
        one = torch.func.vmap(F.scaled_dot_product_attention, dims)(query, keys, keys)
        other = torch.func.vmap(F.scaled_dot_product_attention, dims)(*(t.to("chip") for t in (query, keys, keys)))
        torch.testing.assert_close(other.cpu(), one)


def test_attention_of_jagged_tensors():
    parts = [torch.randn(n, 2, 8) for n in (3, 5)]

    def attend_to(d):
        """The result and the gradient of what was given."""
        jagged = torch.nested.nested_tensor([part.to(d) for part in parts], layout=torch.jagged, requires_grad=True)
        heads = jagged.transpose(1, 2)
        result = F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2)
        result.values().square().sum().backward()
        return result.values().detach().cpu(), jagged.grad.values().cpu()

    torch.testing.assert_close(attend_to("chip"), attend_to("cpu"), rtol=1e-5, atol=1e-5)


def test_flex_attention():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    operands = [torch.randn(1, 2, 32, 16) for _ in range(3)]

    def attend_to(d):
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 32, 32, device=d)
        given = [operand.to(d) for operand in operands]
        return flex_attention(*given, score_mod=lambda s, b, h, i, j: s + (i - j) / 8, block_mask=mask).cpu()

    torch.testing.assert_close(attend_to("chip"), attend_to("cpu"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("heads", "groups", "keys", "size", "value_size", "is_masked"),
    [(8, 2, 300, 64, 64, False), (6, 2, 777, 80, 80, True), (16, 1, 2500, 96, 64, False), (2, 1, 3, 16, 16, True)],
)
def test_one_query_a_sequence_whose_keys_are_divided_and_shared(heads, groups, keys, size, value_size, is_masked):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, heads, 1, size), (2, groups, keys, size), (2, groups, keys, value_size))
    given = [torch.randn(shape, generator=generator) for shape in shapes]
    mask = torch.randn(2, 1, 1, keys, generator=generator) if is_masked else None
    if mask is not None:
        mask[0, ..., : keys // 2] = -INF
    results = []
    for device in ("cpu", "chip"):
        query, key, value = (t.to(device).detach().clone().requires_grad_() for t in given)
        bias = None if mask is None else mask.to(device)
        out = F.scaled_dot_product_attention(query, key, value, bias, enable_gqa=True)
        out.sum().backward()
        results.append([t.detach().cpu() for t in (out, query.grad, key.grad, value.grad)])
    for on_cpu, on_chip in zip(*results, strict=True):
        torch.testing.assert_close(on_chip, on_cpu, rtol=1e-4, atol=1e-5)


def test_an_encoder_in_evaluation_takes_padding():
    """nn.TransformerEncoder would make a nested tensor of it."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 1).eval()
    x, padding = torch.randn(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        expected = encoder(x, src_key_padding_mask=padding)
        found = encoder.to("chip")(x.to("chip"), src_key_padding_mask=padding.to("chip")).cpu()
    torch.testing.assert_close(found[~padding], expected[~padding], rtol=1e-4, atol=1e-5)
