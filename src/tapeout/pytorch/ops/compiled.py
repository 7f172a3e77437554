"""Operators nobody wrote a kernel for, as kernels that Inductor writes: one compiled function for one operator.

Takes any aten overload with its arguments and gives its result, or says why it cannot be had this way. A function is
traced with symbolic sizes and strides, so it serves every shape its guards allow; which function serves which shapes
is remembered, so that a call costs a look-up and the function. Numbers among the arguments are constants of a
function. Inductor's own cache on disk keeps what it wrote for the next process.

An operator of half types is compiled for float32, with the results rounded once: what it is composed of would else
round, or overflow, at every step.
"""

import concurrent.futures
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tapeout import chip as chips
from tapeout.pytorch.ops.launch import refuse_as_the_host_does

Results = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Function:
    """A compiled operator: `run` takes a list of its tensors. `holds` says whether it is valid for others."""

    run: Callable[[list[torch.Tensor]], Results]
    holds: Callable[[list[torch.Tensor]], bool]
    pack: Callable[[Results, list[torch.Tensor]], Any]


@dataclass(frozen=True)
class Refusal:
    """Reason why Inductor cannot compile an operator."""

    reason: str


@dataclass(frozen=True)
class _FromArgument:
    """A returned value that is one of the call's tensors."""

    index: int


# By everything that is known of a call; by everything but sizes and strides.
_exact: dict[Hashable, Function | Refusal] = {}
_similar: dict[Hashable, list[Function]] = {}
_refused: dict[Any, Refusal] = {}
_busy = threading.local()

HALVES = (torch.float16, torch.bfloat16)
BY_TYPE = ("nan_to_num", "nextafter", "_softmax", "_log_softmax", "copysign", "signbit")
"""Operators that depend on which numbers their type has or on its bits, or are told that it is a half type."""

WRITTEN_UNSAID = ("native_batch_norm", "batch_norm_update_stats", "batch_norm_gather_stats_with_counts")
"""Operators that write running statistics, which their schemas do not say."""

NOT_OF_BOOLS = frozenset(
    {
        "remainder", "fmod", "floor_divide", "div", "divide", "lcm", "pow", "logaddexp", "logaddexp2", "frac",
        "bitwise_left_shift", "bitwise_right_shift", "lshift", "rshift", "ilshift", "irshift",
    }
)  # fmt: skip
"""Operators that the host refuses for truth values, and at which Inductor would fail with a page of its log."""

COMPILED_DTYPES = frozenset(
    {
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    }
)  # fmt: skip


def run(operator: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The operator's result, or a Refusal. Arguments it writes are written where they are."""
    if operator in _refused:
        return _refused[operator]
    tensors: list[torch.Tensor] = []
    key: Hashable = (
        operator,
        tuple([_describe(value, tensors) for value in args]),
        tuple([(name, _describe(value, tensors)) for name, value in kwargs.items()]),
        chips.active_serial(),
    )
    function = _exact.get(key)
    if function is None:
        if (reason := _obstacle(operator, args, kwargs, tensors)) is not None:
            function = Refusal(reason)
        elif _resize_outputs(operator, args, kwargs):
            return run(operator, args, kwargs)
        else:
            function = _find(operator, args, kwargs, tensors)
        _exact[key] = function
    if isinstance(function, Refusal):
        return function
    running = _busy.__dict__.setdefault("operators", [])
    running.append(operator)
    try:
        results = function.run(list(tensors))
    finally:
        running.pop()
    return function.pack(results, tensors)


def is_running(operator: Any) -> bool:
    """Return whether this thread is inside the compiled function of that operator: then it calls what it should
    replace."""
    return operator in _busy.__dict__.get("operators", ())


def refuse(operator: Any, reason: str) -> None:
    """Remember that an operator is the host's."""
    _refused[operator] = Refusal(reason)


def _describe(value: Any, tensors: list[torch.Tensor]) -> Hashable:
    """Return what a compiled function depends on; a tensor's place among the different tensors of the call goes with
    it."""
    if isinstance(value, torch.Tensor):
        place = next((i for i, other in enumerate(tensors) if other is value), len(tensors))
        if place == len(tensors):
            tensors.append(value)
        return (place, value.dtype, value.device, value.shape, value.stride())
    if isinstance(value, list | tuple):
        return tuple([_describe(item, tensors) for item in value])
    return (float, value.hex()) if value.__class__ is float else (value.__class__, value)


def _loose(value: Any, tensors: list[torch.Tensor]) -> Hashable:
    """The same without what a function's guards decide."""
    if isinstance(value, torch.Tensor):
        place = next(i for i, other in enumerate(tensors) if other is value)
        return (place, value.dtype, value.device, value.dim())
    if isinstance(value, list | tuple):
        return tuple([_loose(item, tensors) for item in value])
    return (float, value.hex()) if value.__class__ is float else (value.__class__, value)


def _resize_outputs(operator: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Give out= tensors of another shape the result's, as torch's own operators do. True if one had to change."""
    names = [argument.name for argument in operator._schema.arguments if argument.is_out]
    outs = [kwargs[name] for name in names if isinstance(kwargs.get(name), torch.Tensor)]
    if not outs:
        return False
    before = [out.shape for out in outs]
    meta = {name: _on_meta(value) for name, value in kwargs.items()}
    try:
        operator(*_on_meta(list(args)), **meta)
    except NotImplementedError:  # no meta function: then it is not compiled either
        return False
    wanted = [meta[name].shape for name in names if isinstance(kwargs.get(name), torch.Tensor)]
    for out, shape in zip(outs, wanted, strict=True):
        if out.shape != shape:
            out.resize_(shape)
    return [out.shape for out in outs] != before


def _on_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    return [_on_meta(item) for item in value] if isinstance(value, list | tuple) else value


def _find(
    operator: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[torch.Tensor]
) -> Function | Refusal:
    key = (
        operator,
        tuple([_loose(value, tensors) for value in args]),
        tuple([(name, _loose(value, tensors)) for name, value in kwargs.items()]),
        chips.active_serial(),
    )
    functions = _similar.setdefault(key, [])
    for function in functions:
        if function.holds(tensors):
            return function
    compiled = _compile(operator, args, kwargs, tensors)
    if isinstance(compiled, Function):
        functions.append(compiled)
    return compiled


def _obstacle(operator: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[torch.Tensor]) -> str | None:
    """Return what forbids compiling, as far as it can be told beforehand."""
    from torch._inductor.lowering import fallbacks, lowerings

    for tensor in tensors:
        if tensor.dtype not in COMPILED_DTYPES:
            return f"{tensor.dtype} is no type of the chip"
        if tensor.device.type != "chip" and tensor.dim():
            return f"one of its tensors is on the {tensor.device.type}"
        if tensor.is_conj() or tensor.is_neg() or tensor.layout != torch.strided:
            return "one of its tensors is a lazy conjugate, a lazy negation or not strided"
    if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
        return "it draws random numbers"
    masks = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors[1:])
    by_numbers = operator is torch.ops.aten.index.Tensor and not masks  # with a mask its shape depends on values
    depends = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(operator.tags)
    if depends and not by_numbers:
        return "what it returns depends on the values in its tensors"
    if operator.overloadpacket.__name__.strip("_") in NOT_OF_BOOLS and _are_bools(args):
        return "it is not defined for truth values"
    functional = _functional_overloads(operator)
    if not any(o in lowerings and o not in fallbacks for o in functional):
        table = _decompositions()
        if not any(o in table or o.has_kernel_for_dispatch_key("CompositeImplicitAutograd") for o in functional):
            return "Inductor has neither a lowering nor a decomposition for it"
    return None


def _are_bools(operands: Sequence[Any]) -> bool:
    return all(
        operand.dtype == torch.bool if isinstance(operand, torch.Tensor) else isinstance(operand, bool)
        for operand in operands
    )


@functools.cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Inductor's, torch's of the operators that Inductor would leave to the device, and our own."""
    from torch._decomp import decomposition_table
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.lowering import fallbacks, lowerings

    from tapeout.pytorch.ops import decompositions

    left = {o: rule for o, rule in decomposition_table.items() if o not in lowerings or o in fallbacks}
    for scan in (torch.ops.aten.cumsum.default, torch.ops.aten.cumprod.default):
        del left[scan]  # Inductor writes scans; torch would make a square of each row
    return {**left, **select_decomp_table(), **decompositions.table()}


def _functional_overloads(operator: Any) -> list[Any]:
    """The operator and the ones it is the in-place or out= form of."""
    packet = operator.overloadpacket
    packets = [packet]
    if (name := packet.__name__).endswith("_") and not name.endswith("__"):
        packets += [getattr(torch.ops.aten, name[:-1], None)]
    overloads = [getattr(p, o) for p in packets if p is not None for o in p.overloads()]
    return [operator, *(o for o in overloads if torch._C._dispatch_has_kernel(o.name()))]


def _is_written(operator: Any, argument: Any) -> bool:
    is_statistic = argument.name in ("running_mean", "running_var")
    return argument.is_write or (is_statistic and operator.overloadpacket.__name__ in WRITTEN_UNSAID)


def _compile(
    operator: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[torch.Tensor]
) -> Function | Refusal:
    from torch._guards import TracingContext, tracing
    from torch._inductor import compile_fx, config
    from torch._inductor.exc import InductorError
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensor,
        UnsupportedOperatorException,
    )
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    returns = operator._schema.returns
    is_list = len(returns) == 1 and str(returns[0].type).startswith("List")
    given = {argument.name: value for argument, value in zip(operator._schema.arguments, args, strict=False)} | kwargs
    # Where each returned value comes from: of an argument that was written it is that argument, else a result.
    written = [None] if is_list else [_written_argument(operator, value) for value in returns]
    changed = {id(given[a.name]) for a in operator._schema.arguments if a.name in given and _is_written(operator, a)}
    is_by_type = operator.overloadpacket.__name__.rstrip("_") in BY_TYPE
    widens = not is_by_type and any(tensor.dtype in HALVES for tensor in tensors)
    layout: list[_FromArgument | int | None] = []

    def functional(*inputs: torch.Tensor) -> list[torch.Tensor]:
        own = dict(zip(map(id, tensors), inputs, strict=True))

        def parts_of(own: dict[int, torch.Tensor], args: Any, kwargs: dict[str, Any]) -> list[Any]:
            replaced = _replace(args, own)
            result = operator(*replaced, **{name: _replace(value, own) for name, value in kwargs.items()})
            return [] if not returns else list(result) if is_list or len(returns) > 1 else [result]

        if widens:
            # What is not used of it falls away; but it says of which types the results are.
            narrow = parts_of({key: x.clone() if key in changed else x for key, x in own.items()}, args, kwargs)
            wide = {key: x.float() if x.dtype in HALVES else x for key, x in own.items()}
            parts = [
                part.to(like.dtype) if isinstance(like, torch.Tensor) else part
                for part, like in zip(parts_of(wide, *_widened((args, kwargs))), narrow, strict=True)
            ]
            for key in changed:
                if own[key].dtype in HALVES:
                    own[key].copy_(wide[key])
        else:
            parts = parts_of(own, args, kwargs)
        names = written * len(parts) if is_list else written
        results: list[torch.Tensor] = []
        layout.clear()
        for part, name in zip(parts, names, strict=True):
            if name is not None:
                layout.append(_FromArgument(next(i for i, t in enumerate(tensors) if t is given[name])))
            elif isinstance(part, torch.Tensor):
                layout.append(len(results))
                results.append(part)
            else:
                layout.append(None)
        return results

    def compile_it() -> tuple[Callable[..., Any], Any, list[Any]]:
        traced = make_fx(
            torch.func.functionalize(functional, remove="mutations"),
            decomposition_table=_decompositions(),
            tracing_mode="symbolic",
        )(*map(_outside_inference, tensors))
        traced.graph.eliminate_dead_code()
        fakes = [node.meta["val"] for node in traced.graph.nodes if node.op == "placeholder"]
        values = (node.meta.get("val") for node in traced.graph.nodes)
        mode = next(value.fake_mode for value in values if isinstance(value, FakeTensor))
        with tracing(TracingContext(mode)), config.patch(emulate_precision_casts=True):
            return compile_fx.compile_fx_inner(traced, fakes), mode.shape_env, fakes

    try:
        run_compiled, shapes, fakes = _undisturbed(compile_it)
    except (
        InductorError,
        NotImplementedError,
        UnsupportedOperatorException,
        DataDependentOutputException,
        DynamicOutputShapeException,
        GuardOnDataDependentSymNode,
    ) as error:
        told = str(error).strip() or type(error).__name__
        return Refusal(f"Inductor refused it: {told.splitlines()[0]}")
    except Exception:  # what the caller gave is wrong, perhaps: then the host says it in torch's words
        refuse_as_the_host_does(operator, *args, **kwargs)
        raise
    guards = shapes.produce_guards_expression(fakes, ignore_static=False)

    def holds(others: list[torch.Tensor]) -> bool:
        return guards is None or bool(shapes.evaluate_guards_expression(guards, others))

    order = tuple(layout)

    def pack(results: Results, others: list[torch.Tensor]) -> Any:
        values = [
            None if place is None else others[place.index] if isinstance(place, _FromArgument) else results[place]
            for place in order
        ]
        return values if is_list else tuple(values) if len(returns) > 1 else values[0] if values else None

    return Function(run_compiled, holds, pack)


def _written_argument(operator: Any, value: Any) -> str | None:
    """The argument that a returned value of the schema is, if it is one that the operator writes."""
    if value.alias_info is None or not value.alias_info.is_write:
        return None
    return next(
        argument.name
        for argument in operator._schema.arguments
        if argument.alias_info is not None and argument.alias_info.before_set == value.alias_info.before_set
    )


def _outside_inference(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor that may be traced: one made in inference mode may be changed there only."""
    if not tensor.is_inference():
        return tensor
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride()
    )


def _replace(value: Any, own: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return own[id(value)]
    if isinstance(value, list | tuple):
        return type(value)([_replace(item, own) for item in value])
    return torch.device("chip", chips.current_index()) if isinstance(value, torch.device) else value


def _widened(value: Any) -> Any:
    """Arguments that ask for a half type, asking for float32."""
    if isinstance(value, dict):
        return {name: _widened(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_widened(item) for item in value])
    return torch.float32 if isinstance(value, torch.dtype) and value in HALVES else value


def _undisturbed(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a thread of its own: it sees the operator as if called at the top.

    A call may come from inside a mode, autograd, autocast or a compiled graph, each of which leaves its marks on the
    thread; the dispatch keys that a compiled graph excludes keep functionalization from unwrapping its tensors.
    """
    here = torch.chip.current_device()  # type: ignore[attr-defined]

    def on_this_chip() -> Any:
        with torch.no_grad(), torch.chip.device(here):  # type: ignore[attr-defined]
            return work()

    # Threads of a program compile one after another, as torch's tracing wants it. To compile may need more compiled.
    with contextlib.nullcontext() if _is_compiling.get() else _compiling:
        token = _is_compiling.set(True)
        context = contextvars.copy_context()  # with Inductor's settings
        _is_compiling.reset(token)
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(context.run, on_this_chip).result()


_compiling = threading.Lock()
_is_compiling: contextvars.ContextVar[bool] = contextvars.ContextVar("_is_compiling", default=False)
