"""Models as modules: the shape of a decoder that a Python file builds, found by running it without data.

Takes `file.py:function`. The function takes nothing and returns an `nn.Module` that is called with tokens, an integer
tensor of one sequence, and returns a score for each word. It runs under PyTorch's fake tensors, so a model of any size
needs no memory. Gives the `ModelShape` whose products are those that one block was seen to do; a model that none
describes (blocks that differ, experts, convolutions) is refused.
"""

import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapeout.models.step import ModelShape
from tapeout.training.problems import TrainingError
from tapeout.training.shapes import parameter_count

if TYPE_CHECKING:
    from torch import nn

LENGTH = 128
"""Tokens of the sequence that a model is run with."""
TOLERANCE = 0.02
"""Share by which the parameters of the shape found may differ from the module's: norms, biases and positions."""


@dataclass
class Block:
    """What one block did: products before attention and after it as (columns, depth), and attention's heads and their
    size; `other`: a product that is none of those."""

    before: list[tuple[int, int]] = field(default_factory=list)
    after: list[tuple[int, int]] = field(default_factory=list)
    heads: int = 0
    head_size: int = 0
    other: str = ""

    def told(self) -> str:
        """What it did, in words."""
        products = ", ".join(f"{depth} to {columns}" for columns, depth in (*self.before, *self.after))
        attention = f"{self.heads} heads of {self.head_size}" if self.heads else "no attention"
        return f"products {products or 'none'}; {attention}" + (f"; {self.other}" if self.other else "")


def model_of_module(source: str) -> ModelShape:
    """The shape of the model that `file.py:function` builds. Raises TrainingError."""
    path, _, name = source.rpartition(":")
    build = _function(Path(path), name)
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            module = build()
        except Exception as error:
            raise TrainingError(f"{source}: building the model raised {type(error).__name__}: {error}") from error
        if not isinstance(module, torch.nn.Module):
            raise TrainingError(f"{source} returns a {type(module).__name__}; it is to return a torch.nn.Module")
        blocks = _blocks(module, source)
        seen = _run(module, blocks, source)
    return _shape(module, seen, name=f"{Path(path).stem}.{name}", source=source)


def _function(path: Path, name: str) -> Callable[[], Any]:
    if path.suffix != ".py" or not path.is_file():
        raise TrainingError(f"{path}: no Python file; a module is written file.py:function")
    found = runpy.run_path(str(path), run_name="tapeout_model").get(name)
    if not callable(found):
        raise TrainingError(f"{path} has no function {name!r}; write one that returns the model")
    return found  # type: ignore[no-any-return]


def _blocks(module: "nn.Module", source: str) -> "Sequence[nn.Module]":
    """The blocks of the longest list of modules."""
    from torch import nn

    lists = [each for each in module.modules() if isinstance(each, nn.ModuleList | nn.Sequential)]
    if not lists:
        raise TrainingError(
            f"{source}: the model has no ModuleList or Sequential of blocks, from which layers are read"
        )
    return list(max(lists, key=len))


def _run(module: "nn.Module", blocks: "Sequence[nn.Module]", source: str) -> list[Block]:
    """Run the model on one sequence and note what each block does."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = [Block() for _ in blocks]
    inside: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if inside:
                _note(seen[inside[-1]], function.overloadpacket.__name__, args)
            return function(*args, **(kwargs or {}))

    def entering(number: int) -> Callable[..., None]:
        return lambda *_: inside.append(number)

    def leaving(*_: Any) -> None:
        inside.pop()

    hooks = []
    for number, block in enumerate(blocks):
        hooks += [block.register_forward_pre_hook(entering(number)), block.register_forward_hook(leaving)]
    try:
        with Watch(), torch.no_grad():
            module(torch.zeros(1, LENGTH, dtype=torch.int64))
    except Exception as error:
        raise TrainingError(
            f"{source}: the model does not run on fake tokens of shape (1, {LENGTH}): {type(error).__name__}: {error}; "
            "a model whose work depends on its data, as that of experts does, is described by its config.json"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _note(block: Block, name: str, args: Sequence[Any]) -> None:
    def sizes(place: int) -> list[int]:
        return [int(each) for each in args[place].shape]

    if name in ("mm", "addmm"):
        depth, columns = sizes(1 if name == "mm" else 2)
        (block.after if block.heads else block.before).append((columns, depth))
    elif "scaled_dot_product" in name and not block.heads:
        block.heads, block.head_size = sizes(0)[-3], sizes(0)[-1]
    elif name in ("bmm", "baddbmm") and not block.heads:
        batch, depth, _ = sizes(1 if name == "bmm" else 2)
        block.heads, block.head_size = batch, depth  # of one sequence, queries by keys
    elif "convolution" in name:
        block.other = "a convolution"


def _shape(module: "nn.Module", seen: list[Block], *, name: str, source: str) -> ModelShape:
    from torch import nn

    block = seen[0]
    for number, each in enumerate(seen):
        if each != block:
            raise TrainingError(
                f"{source}: blocks 0 and {number} differ ({block.told()} and {each.told()}); "
                "models of unlike blocks are described by their config.json"
            )
    embeddings = [each for each in module.modules() if isinstance(each, nn.Embedding)]
    if not embeddings:
        raise TrainingError(f"{source}: the model has no nn.Embedding of its words")
    words = max(embeddings, key=lambda each: each.num_embeddings)
    found = _decoder(block, words.embedding_dim)
    if found is None:
        raise TrainingError(
            f"{source}: a block is not that of a decoder of width {words.embedding_dim}: {block.told()}; it has "
            "products for query, key and value, attention, a product back, and two or three of a feed-forward network"
        )
    key_value_heads, intermediate, is_gated = found
    heads = [each.weight for each in module.modules() if isinstance(each, nn.Linear)]
    shape = ModelShape(
        name=name,
        layers=len(seen),
        hidden=words.embedding_dim,
        heads=block.heads,
        key_value_heads=key_value_heads,
        head_size=block.head_size,
        intermediate=intermediate,
        vocabulary=words.num_embeddings,
        gated=is_gated,
        tied=all(weight is words.weight for weight in heads if weight.shape == words.weight.shape),
    )
    holds = sum(each.numel() for each in module.parameters())
    if abs(parameter_count(shape) / holds - 1) > TOLERANCE:
        raise TrainingError(
            f"{source}: a decoder of these products has {parameter_count(shape):,.0f} parameters, the module "
            f"{holds:,}; it does what no layer of a decoder does"
        )
    return shape


def _decoder(block: Block, hidden: int) -> tuple[int, int, bool] | None:
    """Key and value heads, width of the feed-forward network, and whether it has a gate."""
    width = block.heads * block.head_size
    if block.other or not width or len(block.after) < 3 or any(depth != hidden for _, depth in block.before):
        return None
    (columns, depth), *upwards, (last, inner) = block.after
    shared, rest = divmod(sum(each for each, _ in block.before) - width, 2 * block.head_size)
    gates, left = divmod(sum(each for each, _ in upwards), inner)
    fits = (columns, depth, last) == (hidden, width, hidden) and all(each == hidden for _, each in upwards)
    if rest or left or not fits or gates not in (1, 2) or shared < 1 or block.heads % shared:
        return None
    return shared, inner, gates == 2
