"""Sparse gradients of embeddings, and what optimizers and graph networks do with sparse tensors, against the CPU."""

import functools

import pytest
import torch

import tapeout  # noqa: F401

OPTIMIZERS = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.1),
    "Adagrad": functools.partial(torch.optim.Adagrad, lr=0.1),
    "SparseAdam": lambda parameters: torch.optim.SparseAdam(list(parameters), lr=0.1),
}
TABLES = {
    "embedding": lambda: torch.nn.Embedding(20, 8, sparse=True, padding_idx=3),
    "sum": lambda: torch.nn.EmbeddingBag(20, 8, mode="sum", sparse=True),
    "mean": lambda: torch.nn.EmbeddingBag(20, 8, mode="mean", sparse=True),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_tables_train_by_sparse_gradients(table, optimizer):
    weights = []
    for device in ("cpu", "chip"):
        torch.manual_seed(0)
        model = TABLES[table]().to(device)
        steps = OPTIMIZERS[optimizer](model.parameters())
        for rows in torch.randint(0, 20, (3, 6, 4)):
            steps.zero_grad()
            model(rows.to(device)).square().sum().backward()
            assert model.weight.grad.is_sparse and model.weight.grad.device.type == device
            steps.step()
        weights.append(model.weight.detach().cpu())
    torch.testing.assert_close(*weights)


def sparse(*shape, dense=(), count=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    indices = torch.stack([torch.randint(0, size, (count,), generator=generator) for size in shape])
    return torch.sparse_coo_tensor(indices, torch.randn(count, *dense, generator=generator), (*shape, *dense))


@pytest.mark.parametrize("shape, dense", [((5,), ()), ((5,), (3,)), ((4, 5), ()), ((2, 3, 4), (2,))])
def test_sums_and_merges(shape, dense):
    a, b = sparse(*shape, dense=dense), sparse(*shape, dense=dense, seed=1)
    here, there = a.to("chip"), b.to("chip")
    merged = here.coalesce()
    assert merged.is_coalesced() and merged._nnz() == a.coalesce()._nnz()
    assert torch.equal(merged.indices().cpu(), a.coalesce().indices())
    for made, expected in (
        (merged, a),
        (here + there, a + b),
        (torch.add(here, there, alpha=0.5), torch.add(a, b, alpha=0.5)),
        (here * 3, a * 3),
        (-here / 4, -a / 4),
    ):
        torch.testing.assert_close(made.cpu().to_dense(), expected.to_dense())
        torch.testing.assert_close(made.to_dense().cpu(), expected.to_dense())
    full = torch.ones(a.shape)
    torch.testing.assert_close((full.to("chip") + here).cpu(), full + a)
    masked = full.to("chip").sparse_mask(merged)
    torch.testing.assert_close(masked.cpu().to_dense(), full.sparse_mask(a.coalesce()).to_dense())


def test_a_graph_convolution_by_a_sparse_adjacency():
    adjacency, features, weight = sparse(6, 6), torch.randn(6, 4), torch.randn(4, 3)
    results = []
    for device in ("cpu", "chip"):
        x, w = (t.detach().to(device).requires_grad_() for t in (features, weight))
        out = torch.sparse.mm(adjacency.to(device), x @ w).relu()
        out.sum().backward()
        results.append([t.detach().cpu() for t in (out, x.grad, w.grad)])
    for expected, made in zip(*results, strict=True):
        torch.testing.assert_close(made, expected)


def test_other_operators_are_refused_by_name():
    with pytest.raises(NotImplementedError, match="aten::sin of a sparse or quantized tensor"):
        sparse(3).to("chip").sin()


def test_a_sum_that_the_type_cannot_keep_is_refused():
    with pytest.raises(RuntimeError, match="cannot be kept in"):
        torch.ones(3, dtype=torch.int64, device="chip").add_(sparse(3).to("chip"))
