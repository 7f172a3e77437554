"""What numbers become: beside tensors, in half types, near zero, with signs, and in ranges; as on the CPU."""

import math

import pytest
import torch
import torch.nn.functional as F

INF, NAN = math.inf, math.nan
HALF, BRAIN = torch.float16, torch.bfloat16
TRUTHS = [True, False]


def t(device, *values, dtype=None):
    return torch.tensor(values, dtype=dtype, device=device)


def outcome(function, device):
    """Type and elements, signs of zeros included; or the error that is raised."""
    try:
        result = function(device)
    except Exception as error:
        return type(error), str(error)
    return result.dtype, [repr(value) for value in result.flatten().tolist()]


BESIDE_TENSORS = {
    "a bound with a fraction": lambda d: torch.arange(4, device=d).clamp(0, 2.5),
    "a bound on truths": lambda d: t(d, *TRUTHS).clamp(0, 2),
    "a bound that the type lacks": lambda d: t(d, 1, 2, dtype=torch.uint8).clamp(max=300),
    "a bound that is no number": lambda d: t(d, 1.0, 2.0).clamp(min=NAN),
    "a bound of a tensor": lambda d: t(d, 1, 5).clamp(max=torch.tensor(2.5)),
    "truths full of a half": lambda d: torch.full((2,), 0.5, dtype=torch.bool, device=d),
    "truths filled": lambda d: t(d, False, False).fill_(0.5),
    "truths filled by a tensor": lambda d: t(d, False, False).fill_(torch.tensor(0.25)),
    "masked truths": lambda d: t(d, False, False).masked_fill(t(d, *TRUTHS), 0.25),
    "logical and of numbers": lambda d: torch.logical_and(t(d, *TRUTHS), torch.tensor(0.5)),
    "bytes filled beyond": lambda d: t(d, 1, 2, dtype=torch.uint8).fill_(300),
    "bytes filled below": lambda d: t(d, 1, 2, dtype=torch.uint8).fill_(-1),
    "halves filled beyond": lambda d: t(d, 1, 2, dtype=HALF).fill_(-1e9),
    "masked halves beyond": lambda d: t(d, 1, 2, dtype=HALF).masked_fill_(t(d, *TRUTHS), -1e9),
    "integers filled with a fraction": lambda d: t(d, 1, 2).fill_(2.7),
    "integers filled with no number": lambda d: t(d, 1, 2).fill_(NAN),
    "halves chosen beyond": lambda d: torch.where(t(d, *TRUTHS), t(d, 1, 2, dtype=HALF), 1e9),
    "bytes chosen beyond": lambda d: torch.where(t(d, *TRUTHS), t(d, 1, 2, dtype=torch.uint8), 300),
    "bytes and a larger number": lambda d: t(d, 1, 2, dtype=torch.uint8) + 300,
    "a number that wraps": lambda d: t(d, 1, 2, dtype=torch.int32) + 2**40,
    "equal in its type": lambda d: t(d, 0.7, dtype=BRAIN) == 0.7,
    "less in its type": lambda d: t(d, 0.7, 0.1, dtype=HALF) < 0.7,
    "integers against a fraction": lambda d: t(d, 1, 2, 3) > 1.5,
    "less in a half type": lambda d: t(d, 0.7, 3.0, dtype=BRAIN) - 0.7,
    "times in a half type": lambda d: t(d, 3.0, 100.0, dtype=BRAIN) * 0.7,
    "divided in a half type": lambda d: t(d, 0.7, 5.0, dtype=BRAIN) / 0.7,
    "remainder in a half type": lambda d: t(d, 0.7, 5.0, dtype=BRAIN) % 0.7,
    "remainder of a scalar": lambda d: torch.tensor(3, dtype=torch.int32, device=d) % 2,
    "quotient of infinity": lambda d: t(d, INF, -7.0, 5.0, 0.0, -0.0, NAN) // 2,
    "quotient by a tenth": lambda d: t(d, 1.0, -1.0, 0.3) // 0.1,
    "quotient by zero": lambda d: t(d, 1.0, -1.0, 0.0) // t(d, 0.0, -0.0, 0.0),
    "bytes of floats": lambda d: t(d, -1.5, 300.7, 1e10, NAN, INF).to(torch.uint8),
    "words of floats": lambda d: t(d, -1.5, 70000.7, -1e10, NAN, INF).to(torch.int16),
    "integers of floats": lambda d: t(d, -1.5, 300.7, 1e10, NAN, -INF).to(torch.int32),
    "long integers of halves": lambda d: t(d, -1.5, 300.0, INF, NAN, dtype=HALF).to(torch.int64),
    "three tenths": lambda d: torch.arange(0, 0.9, 0.3, device=d),
    "three sixths": lambda d: torch.arange(0, 1.8, 0.6, device=d),
    "integers by one and a half": lambda d: torch.arange(0, 5, 1.5, dtype=torch.int64, device=d),
    "words by one and a half": lambda d: torch.arange(0, 5, 1.5, dtype=torch.int32, device=d),
    "integers by nothing": lambda d: torch.arange(0, 5, 0.5, dtype=torch.int64, device=d),
    "against the step": lambda d: torch.arange(5, 0, 1, device=d),
    "downwards": lambda d: torch.arange(5, 0, -2, device=d),
    "around zero": lambda d: torch.arange(-1, 1, 0.125, device=d),
    "large integers in line": lambda d: torch.linspace(2**40, 2**40 + 8, 9, dtype=torch.int64, device=d),
    "integers in line": lambda d: torch.linspace(-7, 10, 6, dtype=torch.int32, device=d),
    "integers in line beyond": lambda d: torch.linspace(0, 300, 3, dtype=torch.uint8, device=d),
    "powers of ten": lambda d: torch.logspace(0, 5, 6, dtype=torch.int64, device=d),
    "product with a factor": lambda d: torch.addcmul(t(d, 0, dtype=HALF), *(t(d, 300, dtype=HALF),) * 2, value=0.001),
    "quotient with a factor": lambda d: torch.addcdiv(
        t(d, 0, dtype=HALF), t(d, 300, dtype=HALF), t(d, 0.001, dtype=HALF), value=0.001
    ),
    "a quarter of the way": lambda d: torch.lerp(t(d, 6e4, dtype=HALF), t(d, -6e4, dtype=HALF), 0.25),
    "most of the way": lambda d: torch.lerp(t(d, 6e4, dtype=HALF), t(d, -6e4, dtype=HALF), 0.75),
    "each its way": lambda d: torch.lerp(
        t(d, 6e4, 6e4, dtype=HALF), t(d, -6e4, 0, dtype=HALF), t(d, 0.25, 0.5, dtype=HALF)
    ),
    "norm in a given type": lambda d: torch.linalg.vector_norm(torch.full((8,), 300, dtype=HALF, device=d), dtype=HALF),
    "norm": lambda d: torch.full((8,), 300, dtype=HALF, device=d).norm(),
    "mean": lambda d: torch.full((8,), 6e4, dtype=HALF, device=d).mean(),
    "deviation": lambda d: t(d, 300, -300, dtype=HALF).std(),
    "group norm": lambda d: F.group_norm(torch.tensor([[6e4, 3e4], [2e4, 1e4]], dtype=HALF, device=d), 1),
    "number by a tensor": lambda d: 0.7 // t(d, 0.7, 1.0, dtype=BRAIN),
    "loss": lambda d: F.smooth_l1_loss(t(d, 300, dtype=HALF), t(d, -300, dtype=HALF), beta=600.0),
    "minus zero": lambda d: -t(d, 0.0, -0.0, 1.0),
    "product with a double of the host": lambda d: torch.addcmul(
        t(d, 1.0, 2.0), t(d, 3.0, 4.0), torch.tensor(0.1, dtype=torch.float64), value=0.5
    ),
    "quotient with a double of the host": lambda d: t(d, 1.0, 2.0).addcdiv_(
        t(d, 3.0, 4.0), torch.tensor(0.1, dtype=torch.float64), value=0.5
    ),
    "bytes negated": lambda d: -t(d, 0, 1, 255, dtype=torch.uint8),
    "bytes negated in place": lambda d: t(d, 0, 1, 255, dtype=torch.uint8).neg_(),
    "bytes negated, compiled": lambda d: torch.compile(torch.neg)(t(d, 0, 1, 255, dtype=torch.uint8)),
    "bytes from a number": lambda d: 5 - t(d, 0, 1, 255, dtype=torch.uint8),
    "bytes by a negative number": lambda d: t(d, 0, 1, 255, dtype=torch.uint8) * -1,
    "bytes and a negative number": lambda d: t(d, 0, 1, 255, dtype=torch.uint8) + -1,
    "bytes above a negative number": lambda d: t(d, 0, 1, 255, dtype=torch.uint8) > -1,
    "bytes from a negative number": lambda d: t(d, 0, 1, 255, dtype=torch.uint8).clamp(min=-1),
    "bytes by a negative number, rest": lambda d: t(d, 3, 1, 255, dtype=torch.uint8) // 2 % 3,
    "clamped zeros": lambda d: torch.cat(
        [F.relu(t(d, -0.0, 0.0, NAN)), F.relu6(t(d, -0.0, 7.0)), t(d, -0.0).clamp(0, 1)]
    ),
    "signs": lambda d: t(d, NAN, -0.0, 0.0, -INF, dtype=torch.float64).signbit(),
    "signs, compiled": lambda d: torch.compile(torch.signbit)(t(d, -0.0, 0.0, -INF, dtype=torch.float64)),
    "signs given": lambda d: torch.copysign(t(d, NAN, -0.0, 3.0), -1.0).signbit(),
    "signs given to halves": lambda d: torch.copysign(t(d, NAN, -0.0, 3.0, dtype=HALF), -0.0).signbit(),
    "signs given to integers": lambda d: torch.copysign(t(d, 1, -2), t(d, -0.0, 0.0, dtype=torch.float64)),
    "halves added beyond": lambda d: torch.add(t(d, 1, dtype=HALF), t(d, 1, dtype=HALF), alpha=1e9),
    "halves taken away beyond": lambda d: t(d, 1, dtype=HALF).sub_(t(d, 1, dtype=HALF), alpha=1e9),
    "halves from a number beyond": lambda d: torch.rsub(t(d, 1, dtype=HALF), 2.0, alpha=1e9),
    "halves of a list added beyond": lambda d: torch._foreach_add([t(d, 1, dtype=HALF)] * 2, [t(d, 1)] * 2, alpha=1e9)[
        0
    ],
    "bytes added beyond": lambda d: torch.add(t(d, 1, dtype=torch.int8), t(d, 1, dtype=torch.int8), alpha=128),
    "bytes taken away at the end": lambda d: torch.sub(t(d, 1, dtype=torch.int8), t(d, 1, dtype=torch.int8), alpha=128),
    "truths shifted": lambda d: torch.stack([t(d, *TRUTHS) << 2, t(d, *TRUTHS) >> 1, t(d, *TRUTHS) << t(d, 1, 2)]),
    "shifted by truths": lambda d: t(d, 5, 6) << t(d, *TRUTHS),
    "integers by a tenth": lambda d: torch.arange(0, 1, 0.1, dtype=torch.int32, device=d),
    "long integers by a tenth": lambda d: torch.arange(0, 1, 0.1, dtype=torch.int64, device=d),
    "halves in line beyond": lambda d: torch.linspace(0, 2**31, 3, dtype=HALF, device=d),
    "powers of a negative number": lambda d: torch.logspace(0, 4, 5, base=-2, device=d),
    "labels that end": lambda d: F.multilabel_margin_loss(
        torch.arange(12.0, device=d).view(3, 4) % 5, t(d, 1, 0, -1, 2, 3, -1, 0, 0, 0, 1, 2, 3).view(3, 4)
    ),
    "labels that end, compiled": lambda d: (
        torch.compile(F.multilabel_margin_loss)(
            torch.arange(4.0, device="chip"), t("chip", 1, -1, 2, 0), reduction="none"
        ).cpu()
        if d == "chip"
        else F.multilabel_margin_loss(torch.arange(4.0), t(d, 1, -1, 2, 0), reduction="none")
    ),
    "functions of zeros": lambda d: torch.stack([getattr(t(d, -0.0, 0.0), f)() for f in ("tanh", "expm1", "log1p")]),
}


@pytest.mark.parametrize("name", BESIDE_TENSORS)
def test_numbers_are_what_they_are_on_the_cpu(name):
    assert outcome(BESIDE_TENSORS[name], "chip") == outcome(BESIDE_TENSORS[name], "cpu")


OF_TRUTHS = {
    "remainder": lambda x: x % x,
    "remainder of a number": lambda x: True % x,
    "remainder in place": lambda x: x.remainder_(True),
    "fmod": lambda x: torch.fmod(x, x),
    "quotient": lambda x: x // x,
    "quotient of a number": lambda x: True // x,
    "quotient in place": lambda x: x.div_(x, rounding_mode="floor"),
    "quotient cut off": lambda x: torch.div(x, True, rounding_mode="trunc"),
    "shift": lambda x: x << x,
    "power": lambda x: x**x,
}


@pytest.mark.parametrize("name", OF_TRUTHS)
def test_what_truths_lack_is_refused_before_anything_is_compiled(name, monkeypatch):
    def fail(*arguments):
        raise AssertionError("it was compiled")

    monkeypatch.setattr("tapeout.pytorch.ops.compiled._compile", fail)
    errors = []
    for d in ("cpu", "chip"):
        with pytest.raises(RuntimeError) as caught:
            OF_TRUTHS[name](t(d, *TRUTHS))
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
def test_integers_divided_by_zero_are_some_number(dtype):
    """The host raises, which a device cannot; the other quotients are what they are."""
    x, y = t("chip", 7, 7, dtype=dtype), t("chip", 0, 2, dtype=dtype)
    found = [x % y, torch.fmod(x, y), x // y, torch.div(x, y, rounding_mode="trunc"), x.clone().remainder_(y)]
    assert [result[1].item() for result in found] == [1, 1, 3, 3, 1]
    assert (x % 0).shape == (x // 0).shape == (2,)


FUNCTIONS = [torch.tanh, torch.expm1, torch.log1p, torch.sinh, F.silu, F.gelu, torch.erf]
UNITS = 6
"""How far from the exact value, in units in the last place; the half types round once, so there it is half of one."""


@pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_small_numbers_keep_their_digits(function, dtype):
    exponents = torch.arange(-24 if dtype == HALF else -126, 0, dtype=torch.float64)
    given = torch.cat([factor * 2**exponents for factor in (1.0, 1.4, -1.7)]).to(dtype)
    exact = function(given.double())
    unit = torch.finfo(dtype).eps * exact.abs().clamp(min=torch.finfo(dtype).tiny)
    found = function(given.to("chip")).cpu().double()
    assert ((found - exact).abs() <= (0.501 if dtype == HALF else UNITS) * unit).all()
    assert torch.equal(found.signbit(), exact.signbit())


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_adam_moves_halves_of_large_gradients(options):
    def step(device):
        parameter = torch.nn.Parameter(torch.zeros(4, dtype=HALF, device=device))
        optimizer = torch.optim.Adam([parameter], lr=0.1, **options)
        parameter.grad = torch.full_like(parameter, 300)
        optimizer.step()
        return parameter.detach().cpu()

    assert torch.equal(step("chip"), step("cpu"))


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_fused_moments_near_one(optimizer):
    """One less beta has to be taken before it is rounded."""

    def state(device):
        parameter = torch.nn.Parameter(torch.full((4,), 0.5, device=device))
        stepping = optimizer([parameter], lr=0.1, betas=(0.9999, 0.99999), fused=True)
        for gradient in (2.0, 3.0):
            parameter.grad = torch.full_like(parameter, gradient)
            stepping.step()
        moments = stepping.state[parameter]
        return torch.stack([parameter.detach(), moments["exp_avg"], moments["exp_avg_sq"]]).cpu()

    torch.testing.assert_close(state("chip"), state("cpu"), rtol=1e-6, atol=0)


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_networks_without_bias(kind, both_ways):
    torch.manual_seed(3)
    network, steps = getattr(torch.nn, kind)(3, 4, bias=False, bidirectional=both_ways), torch.randn(2, 2, 3)
    expected = network(steps)[0]
    torch.testing.assert_close(network.to("chip")(steps.to("chip"))[0].cpu(), expected, rtol=1e-5, atol=1e-6)
    if kind != "RNN" and not both_ways:
        cell = getattr(torch.nn, f"{kind}Cell")(3, 4, bias=False)
        first = cell(steps[0])
        found = cell.to("chip")(steps[0].to("chip"))
        torch.testing.assert_close(
            [x.cpu() for x in (found if kind == "LSTM" else [found])],
            list(first) if kind == "LSTM" else [first],
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("dtype", [torch.float32, BRAIN, torch.int32, torch.bool], ids=str)
def test_new_memory_is_filled_where_determinism_is_asked_for(dtype):
    def made(device):
        new = torch.empty(2, dtype=dtype, device=device)
        return [
            *new.tolist(),
            *torch.empty_like(new).tolist(),
            *torch.empty_strided((2,), (1,), dtype=dtype, device=device).tolist(),
        ]

    torch.use_deterministic_algorithms(True)
    try:
        assert repr(made("chip")) == repr(made("cpu"))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("step", [2, 1])
def test_what_is_no_number_stays_in_its_windows(step):
    """A gradient of NaN or infinity goes to the inputs of its window only."""

    def gradient(device):
        x = torch.arange(24.0).view(1, 2, 3, 4).to(device).requires_grad_()
        out = F.avg_pool2d(x, 2, step, ceil_mode=True)
        given = torch.arange(float(out.numel())).view(out.shape)
        given[0, 0, 0, 0], given[0, 1, 1, 1] = NAN, INF
        out.backward(given.to(device))
        return x.grad.cpu()

    torch.testing.assert_close(gradient("chip"), gradient("cpu"), equal_nan=True)
