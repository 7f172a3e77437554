"""Moving modules to the chip keeps parameters, and ties, whatever holds on to them."""

import pytest
import torch

import tapeout  # noqa: F401


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 8)
        self.middle = torch.nn.Linear(8, 8)
        self.head = torch.nn.Linear(8, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.middle(self.embedding(tokens)))


def test_parameters_stay_the_same_objects():
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.to("chip")
    assert model.head.weight is model.embedding.weight
    assert optimizer.param_groups[0]["params"][0] is model.embedding.weight
    assert model.embedding.weight.device.type == "chip"


def test_a_live_graph_does_not_stop_the_move_nor_untie():
    model, tokens = Tied(), torch.arange(4)
    expected = model(tokens)  # its graph holds every parameter
    model.to("chip")
    assert model.head.weight is model.embedding.weight
    assert {parameter.device.type for parameter in model.parameters()} == {"chip"}
    torch.testing.assert_close(model(tokens.to("chip")).cpu(), expected)


def test_back_to_the_host():
    model = Tied().to("chip")
    result = model(torch.arange(4).to("chip"))
    model.to("cpu")
    assert model.head.weight is model.embedding.weight
    torch.testing.assert_close(model(torch.arange(4)), result.cpu())


def test_a_state_is_loaded_into_the_same_memory():
    model = Tied().to("chip")
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    with torch.autocast("chip", dtype=torch.float16):  # which keeps weak references to what it has converted
        model(torch.arange(4, device="chip"))
        model.load_state_dict({name: torch.ones(value.shape) for name, value in model.state_dict().items()})
    assert [parameter.data_ptr() for parameter in model.parameters()] == pointers
    assert all((parameter == 1).all() for parameter in model.parameters())


def test_a_model_without_memory_gets_some_that_lies_the_same_way():
    with torch.device("meta"):
        model = Tied()
        model.turned = torch.nn.Parameter(torch.empty(4, 6).t(), requires_grad=False)
    places = {name: (value.shape, value.stride(), value.requires_grad) for name, value in model.named_parameters()}
    model.to_empty(device="chip")
    assert model.head.weight is model.embedding.weight
    assert {value.device.type for value in model.parameters()} == {"chip"}
    found = {name: (value.shape, value.stride(), value.requires_grad) for name, value in model.named_parameters()}
    assert found == places


def test_data_of_another_place_moves_a_parameter():
    parameter = before = torch.nn.Parameter(torch.ones(2))
    (parameter * 3).sum().backward()
    for place in ("chip", "cpu", "chip"):
        parameter.grad = None
        parameter.data = parameter.data.to(place)
        (parameter * 2).sum().backward()
        assert parameter is before and parameter.is_leaf and parameter.requires_grad
        assert parameter.device.type == parameter.grad.device.type == place
        assert parameter.grad.tolist() == [2, 2]


@pytest.mark.parametrize("place", ["cpu", "chip"])
@pytest.mark.parametrize("other", [torch.ones(2).to_sparse(), torch.ones(2, device="meta")], ids=["sparse", "meta"])
def test_data_of_another_kind_is_refused(place, other):
    tensor = torch.zeros(2).to(place)
    with pytest.raises(RuntimeError, match="incompatible tensor type"):
        tensor.data = other
    assert tensor.tolist() == [0, 0]
