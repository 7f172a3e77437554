"""Autocast on the chip chooses types as on CUDA: torch's own list of operators for CUDA, operator by operator.

The tensors are fake: autocast acts before the operators do, so the types are all there is to see.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.autocast_test_lists import AutocastTestLists

FAKES = FakeTensorMode(allow_non_fake_inputs=True)
# NVIDIA's library; no function of types; forms of their own (below); a cell that fakes cannot compute.
LEFT_OUT = ("cudnn_convolution", "cudnn_convolution_transpose", "equal", "einsum", "gru_cell")

torch.empty(0, device="chip")  # wakes the device
with FAKES:
    LISTS = AutocastTestLists("chip")

# Where the functions of a list are found, and the type they compute in: None is that of bfloat16 under autocast.
EXPECTED = {
    "torch_fp16": (torch, None),
    "nn_fp16": (torch._C._nn, None),
    "linalg_fp16": (torch._C._linalg, None),
    "methods_fp16": (torch.Tensor, None),
    "torch_fp32": (torch, torch.float32),
    "nn_fp32": (torch._C._nn, torch.float32),
    "methods_fp32": (torch.Tensor, torch.float32),
    "torch_need_autocast_promote": (torch, torch.float32),
    "torch_expect_builtin_promote": (torch, torch.float32),
}
CASES = [
    (kind, number, case[0])
    for kind in EXPECTED
    for number, case in enumerate(getattr(LISTS, kind))
    if case[0] not in LEFT_OUT
]


def in_type(value, to):
    """The list's half-precision tensors in the type of this run."""
    if isinstance(value, torch.Tensor):
        return value.to(to) if value.dtype == torch.float16 else value
    return type(value)(in_type(item, to) for item in value) if isinstance(value, tuple | list) else value


@pytest.mark.parametrize("low", (torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("kind, number, name", CASES)
def test_an_operator_computes_in_the_type_it_has_on_cuda(kind, number, name, low):
    owner, expected = EXPECTED[kind]
    _, args, *rest = getattr(LISTS, kind)[number]
    if kind == "torch_expect_builtin_promote":
        expected, rest = rest[0], rest[1:]
    with FAKES, torch.autocast("chip", dtype=low):
        out = getattr(owner, name)(*in_type(args, low), **(rest[0] if rest else {}))
    first = out[0] if isinstance(out, tuple) else out
    assert first.dtype == (low if expected is None else expected)


def test_einsum_computes_in_the_low_type():
    matrix = torch.ones(2, 2, device="chip")
    with torch.autocast("chip", dtype=torch.bfloat16):
        assert torch.einsum("ij,jk->ik", matrix, matrix).dtype == torch.bfloat16


def test_what_is_banned_says_what_to_use_instead():
    for name, args, owner in LISTS.banned:
        with FAKES, torch.autocast("chip"), pytest.raises(RuntimeError, match="with_logits"):
            getattr(owner, name)(*args)
