"""Keeps values that compiled code reads before it overwrites them.

A graph that reaches Inductor computes first and writes to its inputs at the end, so whatever refers to an input means
the value from before. Inductor then drops copies, writes results into inputs at once and fuses kernels, and some of
that lets a read see what is written later, or a kernel read in one place what it writes in another. On a GPU that
depends on the size; on the chip, whose programs run one after another on each core, it is wrong wherever a tensor takes
more than one program.

`keep_values` takes the graph just before Inductor lets operators write into their arguments, and gives such reads a
copy of their own. `is_overwritten_elsewhere` takes two nodes of the scheduler, and says whether one kernel of both
would read a place that another program of it writes. docs/decisions/mutation-order.md has the cases.
"""

import operator
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch._higher_order_ops.triton_kernel_wrap import triton_kernel_wrapper_functional
from torch._inductor.dependencies import MemoryDep, WeakDep
from torch._inductor.fx_passes.reinplace import inplaceable_foreach_ops
from torch._inductor.fx_utils import get_node_storage

aten = torch.ops.aten
Node = torch.fx.Node

SCATTERS = frozenset(
    {
        aten.index_put.default,
        aten._unsafe_index_put.default,
        aten.slice_scatter.default,
        aten.select_scatter.default,
        aten.diagonal_scatter.default,
        aten.as_strided_scatter.default,
    }
)
"""Operators that Inductor may turn into a write into their first argument."""

VIEWS_AS_ANOTHER_TYPE = frozenset({aten.view.dtype, aten.view_as_real.default, aten.view_as_complex.default})
"""Views that Inductor leaves to ATen: it does not see that who reads the view reads what it is a view of."""


def keep_values(graph: torch.fx.Graph) -> None:
    """Copy what is read after, or in the middle of, a write into it. Graphs without such reads stay as they are."""
    _keep_inputs_read_after_their_write(graph)
    _keep_parts_written_elsewhere(graph)
    _keep_results_of_scatters(graph)
    _keep_what_is_viewed_as_another_type(graph)
    _keep_operands_of_foreach(graph)
    _keep_operands_of_kernels(graph)


def _writes(graph: torch.fx.Graph) -> list[Node]:
    """The nodes that write to inputs, in their order."""
    return [node for node in graph.nodes if node.target is aten.copy_.default and node.args[0].op != "call_function"]


def _storage(value: Any) -> Any:
    """Return what identifies the memory of a node's tensor; None without one."""
    return get_node_storage(value)


def _copied(node: Node, before: Node) -> Node:
    graph = node.graph
    with graph.inserting_before(before):
        copy: Node = graph.call_function(aten.clone.default, (node,))
    copy.meta["val"] = node.meta["val"].clone()
    return copy


def _keep_inputs_read_after_their_write(graph: torch.fx.Graph) -> None:
    """`dst[:] = src; src.add_(1)`: with the copy of `src` dropped, `dst` would be written after `src` was."""
    first_write: dict[Any, Node] = {}
    copies: dict[Node, Node] = {}
    for node in list(graph.nodes):
        if node.op == "output":
            break
        for operand in node.all_input_nodes:
            write = first_write.get(_storage(operand))
            is_target = node.target is aten.copy_.default and operand is node.args[0] is not node.args[1]
            if write is None or is_target or operand.target is aten.copy_.default:
                continue
            if operand not in copies:
                copies[operand] = _copied(operand, write)
            node.replace_input_with(operand, copies[operand])
        if node.target is aten.copy_.default:
            first_write.setdefault(_storage(node.args[0]), node)


def _keep_parts_written_elsewhere(graph: torch.fx.Graph) -> None:
    """`x[1:] = x[:-1].clone()` and `x[x[:3]] = 0`: one kernel would read `x` at other places than it writes."""
    for node in list(graph.nodes):
        if node.target not in SCATTERS and node.target is not aten.copy_.default:
            continue
        target, *operands = node.args
        if node.target is aten.copy_.default and operands[0] is target:
            continue
        storage = _storage(target)

        def kept(operand: Node, node: Node = node, storage: Any = storage) -> Node:
            return _copied(operand, node) if _storage(operand) == storage else operand

        node.args = (target, *torch.fx.map_arg(operands, kept))


def _keep_results_of_scatters(graph: torch.fx.Graph) -> None:
    """`y = x.slice_scatter(...); x.zero_(); return y`: written into `x`, the result would be overwritten with it."""
    places = {node: place for place, node in enumerate(graph.nodes)}
    writes = {_storage(write.args[0]): write for write in _writes(graph)}
    for node in list(graph.nodes):
        write = writes.get(_storage(node.args[0])) if node.target in SCATTERS else None
        if write is None:
            continue
        users = (user for alias in _written_with(node) for user in alias.users)
        if any(user is not write and places[user] > places[write] for user in users):
            node.update_arg(0, _copied(node.args[0], node))


def _written_with(scatter: Node) -> Iterator[Node]:
    """The result of a scatter, its views, and the results of scatters into it: all one memory if each is in place."""
    found = [scatter]
    for node in found:
        yield node
        for user in node.users:
            is_view = _storage(user) == _storage(node) and _storage(user) is not None
            if user not in found and (is_view or (user.target in SCATTERS and user.args[0] is node)):
                found.append(user)


def _keep_what_is_viewed_as_another_type(graph: torch.fx.Graph) -> None:
    """`y = x.view(int32) * 2; x.zero_(); return y`: the product is taken when it is needed, after the write."""
    views = [node for node in graph.nodes if node.target in VIEWS_AS_ANOTHER_TYPE]
    if not views:
        return
    written = {_storage(write.args[0]) for write in _writes(graph)}
    written |= {_storage(node.args[0]) for node in graph.nodes if node.target in SCATTERS}
    for view in views:
        if _storage(view.args[0]) in written:
            view.update_arg(0, _copied(view.args[0], view))


def _keep_operands_of_foreach(graph: torch.fx.Graph) -> None:
    """`torch._foreach_add_([x], [x.flip(0)])` and `([x, y], [y, x])`: one kernel writes `x` and reads it elsewhere."""
    written = {_storage(write.args[0]) for write in _writes(graph)}
    for node in list(graph.nodes):
        if node.target not in inplaceable_foreach_ops:
            continue
        targets, operands = node.args[0], [*node.args[1:], *node.kwargs.values()]
        storages = {_storage(target): place for place, target in enumerate(targets)}
        parts = ((place, part) for operand in operands for place, part in _parts(operand) if isinstance(part, Node))
        if storages.keys() & written and any(_reads_elsewhere(part, storages, place) for place, part in parts):
            node.update_arg(0, [_copied(target, node) for target in targets])


def _parts(operand: Any) -> Iterable[tuple[int | None, Any]]:
    """The parts of a list, each with its place; one tensor or number serves every place."""
    return enumerate(operand) if isinstance(operand, list | tuple) else [(None, operand)]


def _reads_elsewhere(value: Node, storages: dict[Any, int], own: int | None) -> bool:
    """Return whether elements of `value` depend on other elements of the tensors in `storages` than those at their
    place."""
    pending, seen = [(value, False)], set()
    while pending:
        node, is_moved = pending.pop()
        if (node, is_moved) in seen:
            continue
        seen.add((node, is_moved))
        place = storages.get(_storage(node))
        if node.op != "call_function":
            if place is not None and (is_moved or place != own):
                return True
            continue
        is_in_place = node.target is operator.getitem or node.target in inplaceable_foreach_ops
        is_in_place = is_in_place or torch.Tag.pointwise in getattr(node.target, "tags", ())
        pending += [(operand, is_moved or not is_in_place) for operand in node.all_input_nodes]
    return False


def _keep_operands_of_kernels(graph: torch.fx.Graph) -> None:
    """`reverse[grid](x.clone(), x)`, a user's kernel or custom operator: with the copy dropped, both would be `x`."""
    for node in list(graph.nodes):
        if node.target is triton_kernel_wrapper_functional:
            operands, names = node.kwargs["kwargs"], node.kwargs["tensors_to_clone"]
            kept = _copied_where_written(node, operands, [operands[name] for name in names], names)
            node.update_kwarg("kwargs", kept)
        elif node.target is torch.ops.higher_order.auto_functionalized_v2:
            node.kwargs = _copied_where_written(node, node.kwargs, node.kwargs["_all_bases"], ())


def _copied_where_written(node: Node, operands: Any, targets: Iterable[Node], names: Iterable[str]) -> dict[str, Any]:
    """The operands by name, copied where they share memory with a target and `names` does not hold them."""
    written = {_storage(target) for target in targets}
    return {
        name: _copied(operand, node)
        if isinstance(operand, Node) and name not in names and _storage(operand) in written - {None}
        else operand
        for name, operand in operands.items()
    }


def is_overwritten_elsewhere(first: Any, second: Any) -> bool:
    """Return whether one of two nodes of Inductor's scheduler writes into an older buffer that the other uses at other
    places.

    At the same place it is safe: an iteration of a kernel loads what it needs before it stores.
    """
    newest = first.scheduler.mutation_real_name

    def uses(dependencies: Iterable[Any]) -> Iterator[tuple[str, Any]]:
        return ((newest.get(each.name, each.name), each) for each in dependencies if not isinstance(each, WeakDep))

    for writer, other in ((first, second), (second, first)):
        written = [(newest[each.name], each) for each in writer.read_writes.writes if each.name in newest]
        if not written:
            continue
        used = list(uses([*other.read_writes.reads, *other.read_writes.writes]))
        if any(name == place and not _at_same_place(use, write) for name, write in written for place, use in used):
            return True
    return False


def _at_same_place(use: Any, write: Any) -> bool:
    if not isinstance(use, MemoryDep) or not isinstance(write, MemoryDep) or write.mode or use.mode:
        return False
    if use.is_indirect() or write.is_indirect():
        return False
    if (use.index, use.size) == (write.index, write.size):
        return True
    use, write = use.normalize(), write.normalize()
    return (use.index, use.size) == (write.index, write.size)
