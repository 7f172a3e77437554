"""Training on the chip without the host's help: gradients, optimizers, autocast, scaling, checkpoints, memory."""

import gc
import io
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tapeout.pytorch import device as chip_device
from tapeout.pytorch import ledger


@pytest.fixture(autouse=True)
def host_is_forbidden():
    chip_device.set_fallback("error")
    yield
    chip_device.set_fallback("count")


def gradients(function, inputs, device):
    """The function's value and its gradients by each of the inputs, all on the CPU."""
    leaves = [value.to(device, copy=True).requires_grad_() for value in inputs]
    out = function(*leaves)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape).to(device)).sum().backward()
    return [out.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves)]


def randn(*shape):
    return torch.randn(*shape)


def at(values, like):
    return torch.tensor(values).to(like.device)


CASES = {
    "linear": (F.linear, randn(5, 7), randn(4, 7), randn(4)),
    "batched product": (torch.matmul, randn(3, 5, 7), randn(3, 7, 4)),
    "gelu": (F.gelu, randn(50)),
    "silu": (F.silu, randn(50)),
    "softmax": (lambda x: x.softmax(-1), randn(5, 20)),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (20,), w, b), randn(5, 20), randn(20), randn(20)),
    "rms norm": (lambda x, w: F.rms_norm(x, (20,), w), randn(5, 20), randn(20)),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), randn(3, 4, 5, 5), randn(4), randn(4)),
    "batch norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), randn(6, 4, 5, 5), randn(4), randn(4)
    ),
    "cross entropy": (lambda x: F.cross_entropy(x, at([1, 0, -100, 3], x)), randn(4, 6)),
    "embedding": (lambda w: F.embedding(at([[1, 2], [1, 0]], w), w), randn(4, 6)),
    "bags": (lambda w: F.embedding_bag(at([1, 2, 1, 0], w), w, at([0, 1], w), mode="sum"), randn(4, 6)),
    "bags of means": (lambda w: F.embedding_bag(at([1, 2, 1, 0], w), w, at([0, 1], w), mode="mean"), randn(4, 6)),
    "largest of bags": (lambda w: F.embedding_bag(at([1, 2, 1, 0], w), w, at([0, 1], w), mode="max"), randn(4, 6)),
    "index": (lambda x: x[at([1, 1, 3], x)], randn(5, 6)),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, padding=1), randn(2, 4, 9), randn(6, 4, 3), randn(6)),
    "conv2d": (
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1, groups=2), randn(2, 4, 9, 8), randn(6, 2, 3, 3), randn(6)
    ),
    "conv3d": (
        lambda x, w, b: F.conv3d(x, w, b, stride=(2, 1, 1), padding=(1, 0, 1)),
        randn(2, 3, 5, 6, 4), randn(4, 3, 3, 2, 3), randn(4),
    ),
    "transposed conv3d": (
        lambda x, w: F.conv_transpose3d(x, w, stride=2, padding=1), randn(2, 3, 3, 2, 4), randn(3, 2, 3, 3, 2)
    ),
    "transposed conv2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2), randn(2, 4, 5, 4), randn(4, 6, 3, 3), randn(6)
    ),
    "attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        randn(2, 3, 70, 24), randn(2, 3, 70, 24), randn(2, 3, 70, 24),
    ),
    "attention, grouped and masked": (
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, attn_mask=torch.linspace(0, 3, 9 * 70).view(1, 1, 9, 70).to(q.device), enable_gqa=True
        ),
        randn(2, 4, 9, 24), randn(2, 2, 70, 24), randn(2, 2, 70, 24),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_the_cpu(name):
    function, *inputs = CASES[name]
    expected = gradients(function, inputs, "cpu")
    found = gradients(function, inputs, "chip")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=1e-5)


OPTIMIZERS = {
    "SGD": lambda p, **how: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True, **how),
    "Adam": lambda p, **how: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True, **how),
    "AdamW": lambda p, **how: torch.optim.AdamW(p, lr=0.01, **how),
}


def model_of(device):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    return model.to(device), torch.randn(4, 5).to(device)


def losses_of(model, values, optimizer, step_count):
    losses = []
    for _ in range(step_count):
        optimizer.zero_grad()
        loss = model(values).pow(2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("how, name", list(itertools.product(("foreach", "fused", "neither"), OPTIMIZERS)))
def test_optimizers_step_as_on_the_cpu(how, name):
    losses = {}
    for device in ("cpu", "chip"):
        model, values = model_of(device)
        options = {"foreach": how == "foreach"} if how != "fused" else {"fused": True}
        losses[device] = losses_of(model, values, OPTIMIZERS[name](model.parameters(), **options), 5)
    torch.testing.assert_close(torch.tensor(losses["chip"]), torch.tensor(losses["cpu"]), rtol=1e-5, atol=1e-7)


def test_autocast_chooses_types_as_everywhere():
    kinds = {}
    for device in ("cpu", "chip"):
        matrix = torch.ones(4, 4, device=device)
        with torch.autocast(device, dtype=torch.bfloat16):
            product = matrix @ matrix
            kinds[device] = (product.dtype, F.linear(matrix, matrix).dtype, (product + matrix).dtype)
            if device == "chip":  # the lists all accelerators share; the CPU's is shorter
                assert product.softmax(-1).dtype == torch.float32
                assert F.layer_norm(product, (4,)).dtype == torch.float32
                assert product.exp().dtype == product.pow(2).dtype == product.sum().dtype == torch.float32
    assert kinds["chip"] == kinds["cpu"]
    assert kinds["chip"][:2] == (torch.bfloat16, torch.bfloat16)


def test_gradient_scaling_skips_a_step_that_is_not_finite():
    weight = torch.nn.Parameter(torch.ones(3, device="chip"))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scaler = torch.amp.GradScaler("chip", init_scale=8.0, growth_interval=1)
    for factor, expected, scale in ((1.0, 0.5, 16.0), (float("inf"), 0.5, 8.0), (1.0, 0.0, 16.0)):
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert weight.tolist() == [expected] * 3 and scaler.get_scale() == scale


def test_dropout_is_reproducible_and_checkpointing_repeats_it():
    layer = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Dropout(0.5)).to("chip")
    values = torch.randn(8, 64).to("chip")
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(3)
        leaf = values.clone().requires_grad_()
        out = torch.utils.checkpoint.checkpoint(layer, leaf, use_reentrant=False) if checkpointed else layer(leaf)
        out.pow(2).sum().backward()
        found.append((out.detach().cpu(), leaf.grad.cpu()))
        share = (found[-1][0] == 0).float().mean().item()
        assert 0.4 < share < 0.6
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_a_run_goes_on_from_its_checkpoint():
    def new():
        model, values = model_of("chip")
        return model, values, torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)

    model, values, optimizer = new()
    whole = losses_of(model, values, optimizer, 6)
    model, values, optimizer = new()
    first = losses_of(model, values, optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    model, values, optimizer = new()
    saved = torch.load(file, map_location="chip")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    assert first + losses_of(model, values, optimizer, 3) == whole


def test_a_killed_run_goes_on_to_the_same_losses_bit_for_bit(tmp_path):
    """Killed in the second step after its checkpoint; what it did in the first must come out again, and go on."""
    script = Path(__file__).with_name("resumable_training.py")

    def run(*options):
        environment = {**os.environ, "TAPEOUT_FALLBACK": "error"}
        command = [sys.executable, str(script), str(tmp_path), *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done, dict(line.split() for line in done.stdout.splitlines())

    killed, before = run("3", "--killed-in-step", "5")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(before) == ["0", "1", "2", "3", "4"]
    resumed, after = run("3")
    assert resumed.returncode == 0, resumed.stderr
    assert list(after) == ["3", "4", "5", "6", "7", "8"]
    assert (after["3"], after["4"]) == (before["3"], before["4"])
    assert len(set(after.values())) == 6


def test_memory_is_counted_and_its_end_is_torchs_error():
    gc.collect()
    before = torch.chip.memory_allocated()
    torch.chip.reset_peak_memory_stats()
    big = torch.empty(1 << 20, device="chip")
    assert torch.chip.memory_allocated() - before == 4 << 20
    del big
    assert torch.chip.memory_allocated() == before
    assert torch.chip.max_memory_allocated() - before == 4 << 20
    with pytest.raises(torch.OutOfMemoryError, match="chip out of memory: tried to allocate"):
        torch.empty(1 << 45, device="chip")
    assert torch.chip.memory_stats()["num_ooms"] >= 1


def test_a_compiled_training_step():
    torch._dynamo.reset()
    losses = {}
    for device in ("cpu", "chip"):
        model, values = model_of(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        run = torch.compile(model) if device == "chip" else model
        losses[device] = losses_of(run, values, optimizer, 3)
    torch.testing.assert_close(torch.tensor(losses["chip"]), torch.tensor(losses["cpu"]), rtol=1e-5, atol=1e-7)


def test_compiled_attention_of_transposed_heads_has_its_gradients():
    torch._dynamo.reset()
    values = randn(2, 9, 3, 8)

    def attend(x):
        heads = x.transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads * 2, heads + 1).transpose(1, 2)

    expected = gradients(attend, [values], "cpu")
    for one, other in zip(gradients(torch.compile(attend), [values], "chip"), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=1e-5)


def test_the_hosts_ledger_stays_empty():
    ledger.reset()
    model, values = model_of("chip")
    losses_of(model, values, torch.optim.AdamW(model.parameters()), 1)
    counts = ledger.snapshot()
    assert counts.on_host == {} and counts.on_chip["aten::addmm"] == 2
