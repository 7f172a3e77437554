"""A captured graph replays its launches on the same memory, with new random numbers, and holds nothing else."""

import gc

import pytest
import torch

import tapeout  # noqa: F401
from tapeout.errors import TapeoutError


def captured(function):
    graph = torch.chip.Graph()
    with torch.chip.graph(graph):
        result = function()
    return graph, result


def test_a_replay_computes_from_what_lies_in_the_inputs_then():
    weight, x = torch.randn(32, 32, device="chip"), torch.zeros(4, 32, device="chip")
    graph, result = captured(lambda: torch.softmax(x @ weight, dim=1).relu())
    for _ in range(2):
        x.copy_(torch.randn(4, 32))
        graph.replay()
        torch.testing.assert_close(result, torch.softmax(x @ weight, dim=1).relu(), rtol=0, atol=0)


def test_nothing_runs_while_it_is_captured():
    x = torch.ones(10, device="chip")
    graph, _ = captured(lambda: x.add_(1))
    assert x.eq(1).all()
    graph.replay()
    graph.replay()
    assert x.eq(3).all()


def test_memory_of_a_graph_is_used_by_nobody_else_until_it_is_gone():
    x = torch.arange(1000.0, device="chip")
    gc.collect()  # tensors of other tests that only the collector frees: they would be counted before and not after
    torch.chip.empty_cache()
    before = torch.chip.memory_allocated()
    graph, result = captured(lambda: (((x + 1) * 2 + 1) * 2).sum())  # whose intermediate results are freed
    others = [torch.full((1000,), 7.0, device="chip") for _ in range(8)]
    graph.replay()
    assert result.item() == (((x + 1) * 2 + 1) * 2).sum().item()
    assert all(other.eq(7).all() for other in others)
    del others, result
    assert torch.chip.memory_allocated() > before
    graph.reset()
    assert torch.chip.memory_allocated() == before


def test_a_whole_training_step_with_dropout():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 1)).to("chip")
    twin = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 1)).to("chip")
    twin.load_state_dict(model.state_dict())
    x = torch.randn(4, 8, device="chip")

    def trained(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        return step

    graph, loss = captured(trained(model))
    step = trained(twin)
    torch.manual_seed(1)
    replayed = [graph.replay() or loss.item() for _ in range(3)]
    torch.manual_seed(1)
    assert replayed == [step().item() for _ in range(3)]
    assert len(set(replayed)) == 3


def test_what_a_graph_cannot_do_again_is_refused_and_the_chip_goes_on():
    x = torch.ones(3, device="chip")

    def on_host():
        return torch.ops.aten._fft_r2c(torch.empty(4, device="chip"), [0], 0, True)

    for forbidden in (
        lambda: x.sum().item(),
        lambda: torch.tensor([1.0, 2.0], device="chip"),
        lambda: x.cpu(),
        on_host,
    ):
        with pytest.raises(RuntimeError, match="while a graph is captured"):
            captured(forbidden)
        assert (x + 1).sum().item() == 6
    with pytest.raises(TapeoutError, match="within another capture"):
        captured(lambda: captured(lambda: x + 1))
    with pytest.raises(TapeoutError, match="holds nothing"):
        torch.chip.Graph().replay()
