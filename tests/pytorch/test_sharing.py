"""Tensors of the chip in queues, DLPack, safetensors and streams; lazy modules that move there."""

import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.utils import dlpack


@pytest.mark.parametrize("kind", ["tensor", "leaf", "parameter"])
def test_queues_copy_tensors_to_the_receivers_chip(kind):
    sent = torch.arange(3.0, device="chip")
    sent = {"tensor": sent, "leaf": sent.clone().requires_grad_(), "parameter": nn.Parameter(sent)}[kind]
    got = pickle.loads(ForkingPickler.dumps(sent))
    assert (got.device.type, type(got), got.requires_grad) == ("chip", type(sent), sent.requires_grad)
    assert got.tolist() == [0, 1, 2] and got.data_ptr() != sent.data_ptr()


def test_part_of_a_graph_stays_in_its_process():
    part = torch.ones(2, device="chip", requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="part of a graph cannot go to another process"):
        ForkingPickler.dumps(part)


def test_dlpack_both_ways_shares_memory():
    x = torch.arange(4.0, device="chip")
    for y in (torch.from_dlpack(x), dlpack.from_dlpack(dlpack.to_dlpack(x))):
        assert y.device == x.device and y.data_ptr() == x.data_ptr() and y.tolist() == x.tolist()


def test_safetensors_files_are_read_onto_the_chip(tmp_path):
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"a": torch.arange(6.0, device="chip").reshape(3, 2)}, file)
    assert safetensors.torch.load_file(file, device="chip")["a"].device.type == "chip"
    with safetensors.safe_open(file, "pt", device="chip:0") as opened:
        assert list(opened.keys()) == ["a"]
        whole, part = opened.get_tensor("a"), opened.get_slice("a")
        assert part.get_shape() == [3, 2]
        assert (whole.device.type, part[1:].device.type, part[1:].tolist()) == ("chip", "chip", [[2, 3], [4, 5]])


def test_a_stream_may_record_a_tensor():
    torch.ones(3, device="chip").record_stream(torch.chip.current_stream())


@pytest.mark.parametrize(
    "module, shape",
    [(nn.LazyLinear(3), (2, 5)), (nn.LazyConv1d(3, 2), (2, 4, 5)), (nn.LazyBatchNorm1d(), (2, 5))],
    ids=lambda value: type(value).__name__,
)
def test_lazy_modules_take_shape_on_the_chip(module, shape):
    moved = module.to("chip")
    assert moved(torch.ones(shape, device="chip")).device.type == "chip"
    assert {tensor.device.type for tensor in (*moved.parameters(), *moved.buffers())} == {"chip"}
