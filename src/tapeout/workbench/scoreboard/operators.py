"""PyTorch's own database of operators (OpInfo), each operator and dtype on the chip against the CPU.

The samples are PyTorch's that differ in form: in the ranks of their tensors, in which are empty, or in what else they
are given. They run forward and, where PyTorch differentiates, backward. A result is right if it is as near to the CPU's
as the tolerance of its dtype, or, where the operator itself is inaccurate, at most twice as far from the CPU's result
in a wider dtype as the CPU's own result is; or if it is what NumPy or SciPy gives, where PyTorch names a function of
theirs. Operators that draw random numbers or leave memory uninitialised are compared in shape and dtype.

Three more modes run them eagerly in a way PyTorch's samples do not: `inference` in inference mode, with tensors made in
it; `strided` with channels last, transposed or with gaps, and in seven dimensions that do not merge; `mutated` with
arguments changed one by one (an axis of one element or of one too many, another type, an output that is too narrow or
shares memory), in each type that the CPU's operator lacks, and with those that PyTorch says are wrong. Where the CPU
refuses such arguments, the chip must raise an error of the same type and write nothing; where it takes them, the
results must agree.
"""

import contextlib
import functools
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch._functorch import config as functorch_config
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tapeout.workbench import work
from tapeout.workbench.scoreboard import verdicts
from tapeout.workbench.scoreboard.verdicts import Case, Outcome, Verdict, worst

LAYOUT_MODES = ("inference", "strided", "mutated")
"""Modes in which an operator is run with one dtype only, the first that it has: what they are about has no type."""

DTYPES = {name: getattr(torch, name) for name in verdicts.DTYPES}
# Relative to the element, and absolute; the types not named are exact.
TOLERANCES = {
    torch.float32: (1e-4, 1e-5),
    torch.float64: (1e-7, 1e-7),
    torch.bfloat16: (1.6e-2, 1e-2),
    torch.float16: (2e-3, 1e-3),
}
WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float32: torch.float64}
UNINITIALISED = ("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided")
REST_ON_CPU = ("tensor_split",)  # of these PyTorch wants only the first tensor on a device
# Of these PyTorch keeps mean and deviation in float32 on every device but the CPU (torch/_refs, torch/_decomp).
STATISTICS_IN_FLOAT32 = ("native_layer_norm", "native_batch_norm", "_native_batch_norm_legit")
SORTS = ("sort", "argsort", "msort")  # leave the order of equal elements open
# Leave open which of several equal elements they tell the place of; and which of their arguments is the dimension.
DIMENSION_OF_PICKS = {"kthvalue": 1, "topk": 1, "median": 0, "nanmedian": 0, "mode": 0}
QUANTILES = ("quantile", "nanquantile")  # leave open which of several equal elements gets the gradient
SEED = 20


@functools.cache
def database() -> dict[str, Any]:
    """OpInfo of each operator by its name, with the variant if it has one ("div.floor_rounding")."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal import common_methods_invocations as invocations
    # Operators that draw random numbers set the seed themselves, which torch.compile cannot; `results` does it for all.
    invocations.wrapper_set_seed = lambda function, *args, **kwargs: function(*args, **kwargs)
    return {f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name: op for op in invocations.op_db}


def cases(modes: tuple[str, ...]) -> list[Case]:
    """Every operator with every dtype here that PyTorch's CPU supports, dtype by dtype."""
    return [
        Case(name, dtype_name, mode)
        for mode in modes
        for dtype_name, dtype in DTYPES.items()
        for name, op in sorted(database().items())
        if dtype in op.supported_dtypes("cpu") and (mode not in LAYOUT_MODES or dtype is _first_dtype(op))
    ]


def _first_dtype(op: Any) -> torch.dtype | None:
    return next((dtype for dtype in DTYPES.values() if dtype in op.supported_dtypes("cpu")), None)


def judge(case: Case, sample_limit: int) -> Outcome:
    """Run the samples of a case and say how it went: the worst of them decides.

    `sample_limit` is for float32; of the other types one sample runs, since what differs between samples, the form of
    the arguments, is the same with them.
    """
    op, dtype = database()[case.name], DTYPES[case.dtype]
    differentiable = op.supports_autograd and dtype in op.supported_backward_dtypes("cpu")
    torch._dynamo.reset()
    limit = sample_limit if dtype is torch.float32 else 1
    if case.mode == "mutated":
        return _judge_mutated(case, op, dtype, limit)
    differentiable = differentiable and case.mode != "inference"
    mode = torch.inference_mode() if case.mode == "inference" else contextlib.nullcontext()
    chosen = samples(op, dtype, differentiable, limit)
    if case.mode == "strided":
        chosen = [changed for sample in chosen for changed in _strided_samples(op, sample)]
    with mode, warnings.catch_warnings(), functorch_config.patch(enable_autograd_cache=False):
        warnings.simplefilter("ignore")
        outcomes = [_judge_sample(case, op, sample, differentiable) for sample in chosen]
    if not outcomes:
        return Outcome(case, Verdict.SKIPPED, "no sample")
    decisive = worst(outcomes)
    return Outcome(case, decisive.verdict, decisive.cause, len(outcomes))


def samples(op: Any, dtype: torch.dtype, differentiable: bool, limit: int) -> list[Any]:
    """A sample of each form; of more forms than `limit` that many: the first, the last and evenly between."""
    torch.manual_seed(SEED)
    forms: dict[Any, Any] = {}
    for sample in op.sample_inputs("cpu", dtype, requires_grad=differentiable):
        forms.setdefault(form_of(((sample.input, *sample.args), sample.kwargs)), sample)
    found = list(forms.values())
    if len(found) <= limit:
        return found
    return [found[position * (len(found) - 1) // max(limit - 1, 1)] for position in range(limit)]


def form_of(arguments: Any) -> Any:
    """Rank and emptiness of the tensors among the arguments, and the others as text."""
    leaves, structure = pytree.tree_flatten(arguments)
    told = [(x.dim(), x.numel() > 0) if isinstance(x, torch.Tensor) else repr(x) for x in leaves]
    return (str(structure), *told)


def _judge_sample(case: Case, op: Any, sample: Any, differentiable: bool) -> Outcome:
    arguments = (sample.input, *sample.args), sample.kwargs

    def definite(function: Callable[..., Any]) -> Callable[..., Any]:
        """The function without what its results leave open, such as the signs of eigenvectors."""
        return lambda *args, **kwargs: sample.output_process_fn_grad(function(*args, **kwargs))

    randomness = _RandomnessWatch()
    on_host = copied(arguments, "cpu")
    try:
        with randomness:
            on_cpu = _stable(op) if op.name in SORTS else op
            expected = results(definite(on_cpu), on_host, differentiable)
    except Exception as error:
        return Outcome(case, Verdict.SKIPPED, f"the CPU refuses: {verdicts.first_line(error)}")
    on_chip = copied(arguments, "chip")
    if op.name in REST_ON_CPU:
        on_chip = ((on_chip[0][0], *copied(sample.args, "cpu")), on_chip[1])
    before = work.so_far()
    function = _through_inductor(op) if case.mode == "compiled" else op
    try:
        got = results(definite(function), on_chip, differentiable)
    except Exception as error:
        if case.mode == "compiled" and _fails(
            definite(_through_inductor(op)), copied(arguments, "cpu"), differentiable
        ):
            return Outcome(case, Verdict.SKIPPED, f"torch.compile fails on the CPU too: {verdicts.first_line(error)}")
        return verdicts.of_error(case, error)
    if op.name in STATISTICS_IN_FLOAT32:
        got = [_as_on_the_cpu(ours, theirs) for ours, theirs in zip(got, expected, strict=True)]
    if op.name in DIMENSION_OF_PICKS and len(expected) > 1 and expected[1].dtype == torch.int64:  # not a gradient
        got, expected = _with_picks(op, sample, got), _with_picks(op, sample, expected)
    host_operators = (work.so_far() - before).ops_on_host
    values_are_free = op.name in UNINITIALISED or randomness.seen
    if written := difference(_values(on_chip), _values(on_host), values_are_free):
        return Outcome(case, Verdict.WRONG, f"an argument after the call, {written}")
    fault = difference(got, expected, values_are_free)
    if fault and not values_are_free:
        as_good = _is_as_good_as_the_cpu(definite(op), arguments, differentiable, got, expected)
        fault = None if as_good or _is_as_the_reference_has_it(op, sample, got, expected) else fault
    if fault:
        return Outcome(case, Verdict.WRONG, fault)
    return verdicts.of_right_result(case, host_operators)


def _through_inductor(op: Any) -> Callable[..., Any]:
    """The compiled operator. Its graph is seldom met twice, so that looking for it in caches would only cost time."""
    return torch.compile(op, dynamic=False, options={"fx_graph_cache": False})


def _with_picks(op: Any, sample: Any, results: list[Any]) -> list[Any]:
    """Values, indices and gradients, with the elements that the indices tell the places of instead of indices."""
    given, (values, index, *gradients) = sample.input.detach(), results
    place = DIMENSION_OF_PICKS[op.name]
    dim = sample.kwargs.get("dim", sample.args[place] if len(sample.args) > place else -1)
    if given.dim() == 0 or not index.numel() or not 0 <= int(index.min()) <= int(index.max()) < given.shape[dim]:
        return results
    index = index if index.dim() == given.dim() else index.unsqueeze(dim)
    return [values, given.take_along_dim(index, dim), *gradients]


def _as_on_the_cpu(ours: Any, theirs: Any) -> Any:
    """A float32 statistic in the half type that the CPU gives it."""
    halved = isinstance(theirs, torch.Tensor) and theirs.dtype in (torch.bfloat16, torch.float16)
    return ours.to(theirs.dtype) if halved and ours.dtype == torch.float32 else ours


def results(function: Callable[..., Any], arguments: Any, differentiable: bool) -> list[Any]:
    """Results and, where they can be had, gradients of the arguments for a fixed cotangent; all on the CPU."""
    torch.manual_seed(SEED)
    positional, named = arguments
    results = [leaf for leaf in pytree.tree_leaves(function(*positional, **named)) if leaf is not None]
    found = [leaf.detach().cpu() if isinstance(leaf, torch.Tensor) else leaf for leaf in results]
    roots = [leaf for leaf in results if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    leaves = [a for a in pytree.tree_leaves(arguments) if isinstance(a, torch.Tensor) and a.requires_grad]
    if differentiable and roots and leaves:
        gradients = torch.autograd.grad(roots, leaves, [_cotangent(root) for root in roots], allow_unused=True)
        found += [None if gradient is None else gradient.cpu() for gradient in gradients]
    return found


def _fails(function: Callable[..., Any], arguments: Any, differentiable: bool) -> bool:
    try:
        results(function, arguments, differentiable)
    except Exception:
        return True
    return False


def _cotangent(root: torch.Tensor) -> torch.Tensor:
    """Values that differ from one another, the same on every device."""
    ramp = torch.arange(root.numel(), dtype=torch.float64) % 7 / 4 - 0.5
    return ramp.reshape(root.shape).to(root.dtype).to(root.device)


def copied(arguments: Any, device: str, dtype: torch.dtype | None = None) -> Any:
    """The arguments with tensors of their own on a device, as they lie in memory; a tensor met twice stays one tensor,
    and tensors that share memory share it again."""
    made: dict[int, torch.Tensor] = {}
    tensors = {id(leaf): leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)}
    owners = Counter(_memory_of(tensor) for tensor in tensors.values())
    memories: dict[Hashable, torch.Tensor] = {}

    def copy(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            if id(leaf) not in made:
                widened = dtype if dtype is not None and leaf.is_floating_point() else leaf.dtype
                given, memory = leaf.detach(), _memory_of(leaf)
                if leaf.is_meta:
                    made[id(leaf)] = given
                elif owners[memory] == 1 and (leaf.layout is not torch.strided or _is_dense(given)):
                    made[id(leaf)] = given.clone().to(device=device, dtype=widened)
                else:
                    if memory not in memories:
                        whole = given.as_strided((leaf.untyped_storage().nbytes() // leaf.itemsize,), (1,), 0)
                        memories[memory] = whole.clone().to(device=device, dtype=widened)
                    made[id(leaf)] = memories[memory].as_strided(leaf.shape, leaf.stride(), leaf.storage_offset())
                made[id(leaf)] = made[id(leaf)].detach().requires_grad_(leaf.requires_grad)
            return made[id(leaf)]
        if isinstance(leaf, torch.device) or leaf == "cpu":
            return torch.device(device)
        return dtype if dtype is not None and isinstance(leaf, torch.dtype) and leaf in WIDER else leaf

    return pytree.tree_map(copy, arguments)


def _memory_of(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors that share memory and have one type."""
    if tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return id(tensor)
    return tensor.untyped_storage().data_ptr(), tensor.dtype


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.clone().stride() == tensor.stride()


def difference(got: list[Any], expected: list[Any], values_are_free: bool) -> str | None:
    """Return what is wrong with the results, or None."""
    if len(got) != len(expected):
        return f"{len(got)} results instead of {len(expected)}"
    for position, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        if not isinstance(theirs, torch.Tensor):
            if ours != theirs and not values_are_free:
                return f"result {position} is {ours!r} instead of {theirs!r}"
            continue
        if not isinstance(ours, torch.Tensor) or (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return f"result {position} is {_described(ours)} instead of {_described(theirs)}"
        if values_are_free or theirs.layout is not torch.strided:
            continue
        relative, absolute = TOLERANCES.get(theirs.dtype, (0.0, 0.0))
        if not torch.allclose(ours, theirs, rtol=relative, atol=absolute, equal_nan=True):
            return f"result {position}: {_farthest(ours, theirs)}"
    return None


def _described(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)


def _farthest(ours: torch.Tensor, theirs: torch.Tensor) -> str:
    alike = ours.eq(theirs) | (ours.ne(ours) & theirs.ne(theirs))
    apart = torch.where(alike, 0, (ours.double() - theirs.double()).abs())
    place = int(apart.nan_to_num(nan=float("inf")).argmax())
    return f"{ours.flatten()[place].item()} instead of {theirs.flatten()[place].item()}"


def _is_as_good_as_the_cpu(op: Any, arguments: Any, differentiable: bool, got: list[Any], expected: list[Any]) -> bool:
    """Return whether results are at most twice as far from the CPU's results in a wider dtype as the CPU's own are."""
    given = {leaf.dtype for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)}
    wider = next((WIDER[dtype] for dtype in WIDER if dtype in given), None)
    if wider is None:
        return False
    try:
        exact = results(op, copied(arguments, "cpu", wider), differentiable)
    except Exception:  # some operators want one particular dtype: then the first comparison stands
        return False
    for ours, theirs, truth in zip(got, expected, exact, strict=True):
        if not isinstance(theirs, torch.Tensor) or theirs.dtype not in WIDER or not theirs.numel():
            if difference([ours], [theirs], False):
                return False
            continue
        rounded = truth.to(theirs.dtype)
        truth = torch.where(rounded.isinf(), rounded.double(), truth.double())  # too large for the type: infinite there
        relative, absolute = TOLERANCES[theirs.dtype]
        absolute += 2 * float((theirs.double() - truth).abs().nan_to_num(0.0, 0.0).max())
        if not torch.allclose(ours.double(), truth, rtol=relative, atol=absolute, equal_nan=True):
            return False
    return True


def _is_as_the_reference_has_it(op: Any, sample: Any, got: list[Any], expected: list[Any]) -> bool:
    """Return whether the first result is that of the NumPy or SciPy function which PyTorch names, and the others the
    CPU's."""
    given = sample.input
    if op.ref is None or sample.args or sample.kwargs or not isinstance(given, torch.Tensor):
        return False
    if given.dtype not in (torch.float32, torch.float64):  # NumPy would compute in another type
        return False
    truth = torch.as_tensor(op.ref(given.detach().numpy())).to(expected[0].dtype)
    return difference(got, [truth, *expected[1:]], False) is None


def _stable(op: Any) -> Any:
    """A sort by which equal elements keep their order, as they do on the chip."""

    def sort(values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if op.name == "msort":  # takes nothing but the values
            return values.sort(dim=0, stable=True).values
        return op(values, **{**dict(zip(("dim", "descending"), args, strict=False)), **kwargs, "stable": True})

    return sort


class _RandomnessWatch(TorchDispatchMode):
    """Notices operators that draw random numbers."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = self.seen or torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


# ---------------------------------------------------------------------------------------------- layouts


def _strided_samples(op: Any, sample: Any) -> Iterator[Any]:
    """The sample with its tensors laid out otherwise, and in seven dimensions where all its tensors have one shape."""
    leaves = [leaf for leaf in pytree.tree_leaves(_arguments(sample)) if isinstance(leaf, torch.Tensor)]
    if any(leaf.layout is not torch.strided for leaf in leaves):
        return
    yield _with_leaves(sample, _laid_out_otherwise)
    if leaves and leaves[0].numel() and all(leaf.shape == leaves[0].shape for leaf in leaves):
        yield _with_leaves(sample, _in_seven_dimensions if op.name not in QUANTILES else _distinct_in_seven_dimensions)


def _arguments(sample: Any) -> Any:
    return (sample.input, *sample.args), sample.kwargs


def _with_leaves(sample: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    from torch.testing._internal.opinfo.core import SampleInput

    def changed(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return change(leaf.detach()).detach().requires_grad_(leaf.requires_grad)

    (given, *others), named = pytree.tree_map(changed, _arguments(sample))
    return SampleInput(
        given, args=tuple(others), kwargs=named, output_process_fn_grad=sample.output_process_fn_grad, name=sample.name
    )


def _laid_out_otherwise(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dim() in (4, 5):
        last = torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d
        return tensor.contiguous(memory_format=last)
    if tensor.dim() > 1:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    return torch.stack([tensor, tensor], -1)[..., 0]


def _in_seven_dimensions(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a tensor, repeated, in dimensions of which no two merge."""
    shape = (3, 2, 1, 2, 3, 2, 2)
    place = torch.arange(math.prod(shape)) % tensor.numel()
    return tensor.reshape(-1)[place].reshape(shape).permute(0, 2, 4, 6, 1, 3, 5)


def _distinct_in_seven_dimensions(tensor: torch.Tensor) -> torch.Tensor:
    repeated = _in_seven_dimensions(tensor)
    return repeated + torch.arange(repeated.numel()).reshape(repeated.shape) / 64


# ---------------------------------------------------------------------------------------------- mutations


MUTATIONS_OF_A_SAMPLE = 4
"""For each sample that the limit allows: the arguments of one are changed in many ways, of which so many run."""

Call = tuple[Callable[..., Any], Any]
"""A function and its arguments."""


def _judge_mutated(case: Case, op: Any, dtype: torch.dtype, limit: int) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes = [
            outcome for call in mutations(op, dtype, limit) if (outcome := _judge_call(case, op, call)) is not None
        ]
    if not outcomes:
        return Outcome(case, Verdict.SKIPPED, "no sample")
    decisive = worst(outcomes)
    return Outcome(case, decisive.verdict, decisive.cause, len(outcomes))


def mutations(op: Any, dtype: torch.dtype, limit: int) -> list[Call]:
    """Calls that PyTorch says are wrong, calls in types it lacks, and calls with arguments changed, evenly chosen."""
    found: list[Call] = []
    for sample in samples(op, dtype, False, limit):
        found += _mutated(op, _arguments(sample))
    most = limit * MUTATIONS_OF_A_SAMPLE
    chosen = found if len(found) <= most else [found[i * len(found) // most] for i in range(most)]
    return [*wrong_calls(op, limit), *_in_other_types(op, dtype), *chosen]


def _in_other_types(op: Any, dtype: torch.dtype) -> Iterator[Call]:
    """The first sample with its tensors in each type that PyTorch says the CPU's operator lacks."""
    for sample in samples(op, dtype, False, 1):
        for lacked in DTYPES.values():
            if lacked not in op.supported_dtypes("cpu"):
                changed = _with_leaves(sample, lambda x: x.detach().to(lacked) if x.dtype is dtype else x)  # noqa: B023
                yield op, _arguments(changed)


def wrong_calls(op: Any, limit: int) -> list[Call]:
    """Return up to `limit` of the arguments that PyTorch says are wrong, evenly chosen."""
    if op.error_inputs_func is None:
        return []
    wrong = [(op, _arguments(error.sample_input)) for error in op.error_inputs("cpu")]
    most = limit * MUTATIONS_OF_A_SAMPLE
    return wrong if len(wrong) <= most else [wrong[i * len(wrong) // most] for i in range(most)]


def _mutated(op: Any, arguments: Any) -> Iterator[Call]:
    """Each of the first tensors with another size or type, then outputs that do not fit."""
    leaves, structure = pytree.tree_flatten(arguments)
    if any(isinstance(leaf, torch.Tensor) and leaf.layout is not torch.strided for leaf in leaves):
        return
    tensors = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and leaf.numel()][:3]
    for place in tensors:
        for changed in _changed(leaves[place]):
            yield op, pytree.tree_unflatten([*leaves[:place], changed, *leaves[place + 1 :]], structure)
    positional, named = arguments
    first = positional[0]
    if not (op.supports_out and isinstance(first, torch.Tensor) and first.numel() > 1):
        return
    for out in (torch.zeros(first.shape, dtype=torch.int64), torch.zeros(1, dtype=first.dtype).expand(first.shape)):
        yield op, (positional, {**named, "out": out})
    if first.dim():
        memory = first.detach().reshape(-1)[torch.arange(first.numel() + 1) % first.numel()]
        shifted = memory[:-1].reshape(first.shape), memory[1:].reshape(first.shape)
        yield op, ((shifted[0], *positional[1:]), {**named, "out": shifted[1]})
    if op.inplace_variant is not None and first.dim():
        yield op.inplace_variant, ((first.detach()[:1].expand(first.shape), *positional[1:]), named)


def _changed(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    given = tensor.detach()
    for dim in {0, given.dim() - 1} if given.dim() else ():
        if given.shape[dim] > 1:
            yield given.narrow(dim, 0, 1)
        yield torch.cat([given, given.narrow(dim, 0, 1)], dim)
    yield given.unsqueeze(0)
    yield given.to(torch.int64 if given.dtype.is_floating_point else torch.float32)
    if given.dtype is torch.float32:
        yield given.half()


def _judge_call(case: Case, op: Any, call: Call) -> Outcome | None:
    """None if the CPU does not run such a call for want of a kernel that another device may have."""
    function, arguments = call
    randomness = _RandomnessWatch()
    try:
        with randomness:
            expected: list[Any] | Exception = results(function, copied(arguments, "cpu"), False)
    except Exception as error:
        if _lacks_kernel(error):
            return None
        expected = error
    on_chip = copied(arguments, "chip")
    given = _values(on_chip)
    before = work.so_far()
    try:
        got: list[Any] | Exception = results(function, on_chip, False)
    except Exception as error:
        got = error
    if isinstance(expected, Exception):
        wanted = verdicts.first_line(expected)
        if not isinstance(got, Exception):
            return Outcome(case, Verdict.WRONG, f"taken, where the CPU raises {wanted}", 1)
        if not isinstance(got, type(expected)) and not verdicts.is_clear(got):
            return Outcome(case, Verdict.BROKEN, f"{verdicts.first_line(got)}, where the CPU raises {wanted}", 1)
        if difference(_values(on_chip), given, False):
            return Outcome(case, Verdict.WRONG, f"written, where the CPU raises {wanted}", 1)
        return Outcome(case, Verdict.NATIVE, sample_count=1)
    if isinstance(got, Exception):
        return verdicts.of_error(case, got)
    free = op.name in UNINITIALISED or randomness.seen
    if (fault := difference(got, expected, free)) and not _is_as_good_as_the_cpu(
        function, arguments, False, got, expected
    ):
        return Outcome(case, Verdict.WRONG, fault, 1) if _is_defined(function, arguments, expected) else None
    return verdicts.of_right_result(case, (work.so_far() - before).ops_on_host)


def _lacks_kernel(error: Exception) -> bool:
    """Return whether the CPU has no such operator, or has it but not for a half type, as other devices do."""
    lacked = re.search(r"not implemented for '(\w+)'", str(error))
    return lacked[1] in ("Half", "BFloat16") if lacked else isinstance(error, NotImplementedError)


def _is_defined(function: Callable[..., Any], arguments: Any, expected: list[Any]) -> bool:
    """Return whether the CPU's result depends neither on the order in which one element is written several times nor on
    memory that nothing has written."""
    out = arguments[1].get("out")
    if isinstance(out, torch.Tensor) and torch._debug_has_internal_overlap(out) == 1:
        return False
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills new memory with NaN
    try:
        again = results(function, copied(arguments, "cpu"), False)
    finally:
        torch.use_deterministic_algorithms(before)
    return difference(again, expected, False) is None


def _values(arguments: Any) -> list[torch.Tensor]:
    leaves = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
    return [leaf.detach().cpu().clone() for leaf in leaves if leaf.layout is torch.strided and not leaf.is_meta]
