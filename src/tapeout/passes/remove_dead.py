"""Removes operations and loop-carried values that nothing observable depends on."""

from dataclasses import replace

from tapeout.tile.ir import Block, Kernel, Operation, Region, Value

EFFECTS = {"tile.store", "tile.atomic", "tt.assert", "tt.call", "tt.store"}


def remove_dead(kernel: Kernel) -> Kernel:
    live: set[Value] = set()
    work: list[Value] = []
    carried: dict[Value, list[Value]] = {}  # what an argument or result of a loop or branch takes its value from
    kept: set[int] = set()

    def collect(region: Region) -> bool:
        """Notes where values come from; True if the region has an effect."""
        effect = False
        for operation in region.block.operations:
            inner = [collect(r) for r in operation.regions] if operation.name.startswith("scf.") else []
            if operation.name == "scf.for":
                body = operation.regions[0].block
                yielded = body.operations[-1].operands
                for k, initial in enumerate(operation.operands[3:]):
                    sources = [initial, yielded[k]]
                    carried[body.arguments[k + 1]] = sources
                    carried[operation.results[k]] = sources
            elif operation.name == "scf.if":
                for k, result in enumerate(operation.results):
                    carried[result] = [r.block.operations[-1].operands[k] for r in operation.regions]
            elif operation.name == "scf.while":
                before, after = (r.block for r in operation.regions)
                condition = before.operations[-1].operands
                for argument, initial, value in zip(
                    before.arguments, operation.operands, after.operations[-1].operands, strict=True
                ):
                    carried[argument] = [initial, value]
                for k, value in enumerate(condition[1:]):
                    carried[operation.results[k]] = carried[after.arguments[k]] = [value]
                work.extend([*condition, *operation.operands])  # a loop's ending is an effect
            if operation.name in EFFECTS or any(inner) or operation.name == "scf.while":
                effect = True
                kept.add(id(operation))
                work.extend(operation.operands[:3] if operation.name == "scf.for" else operation.operands)
        return effect

    collect(kernel.body)
    while work:
        value = work.pop()
        if value in live:
            continue
        live.add(value)
        if value in carried:
            work.extend(carried[value])
        owner = value.owner
        if owner is None:
            continue
        if owner.name == "scf.for":
            work.extend(owner.operands[:3])
        elif owner.name == "scf.if":
            work.extend(owner.operands)
        elif owner.name != "scf.while":
            work.extend(owner.operands)
            for region in owner.regions:  # combine functions
                for inner in region.block.operations:
                    work.extend(inner.operands)

    def sweep(region: Region) -> Region:
        operations = []
        for operation in region.block.operations:
            if id(operation) not in kept and not any(r in live for r in operation.results):
                continue
            if not operation.name.startswith("scf.") or not operation.regions:
                operations.append(operation)
                continue
            operations.append(
                _narrow(operation, live, [sweep_with_terminator(r, operation) for r in operation.regions])
            )
        return Region([Block(region.block.arguments, operations)])

    def sweep_with_terminator(region: Region, parent: Operation) -> Region:
        last = region.block.operations[-1] if region.block.operations else None
        swept = sweep(region)
        if last is not None and last.name in ("scf.yield", "scf.condition"):
            swept.block.operations.append(last)
        return swept

    return replace(kernel, body=sweep(kernel.body))


def _narrow(operation: Operation, live: set[Value], regions: list[Region]) -> Operation:
    """The loop or branch without the carried values that are dead."""
    if operation.name == "scf.while":
        return Operation(
            operation.name, operation.operands, operation.results, operation.attributes, regions, operation.location
        )
    if operation.name == "scf.for":
        body = regions[0].block
        alive = [k for k, result in enumerate(operation.results) if result in live or body.arguments[k + 1] in live]
        operands = [*operation.operands[:3], *(operation.operands[3 + k] for k in alive)]
        body.arguments = [body.arguments[0], *(body.arguments[k + 1] for k in alive)]
    else:
        alive = [k for k, result in enumerate(operation.results) if result in live]
        operands = operation.operands
    for region in regions:
        operations = region.block.operations
        if operations and operations[-1].name == "scf.yield":
            last = operations.pop()
            operations.append(Operation("scf.yield", [last.operands[k] for k in alive], [], {}, [], last.location))
    made = Operation(operation.name, operands, [], operation.attributes, regions, operation.location)
    made.results = [operation.results[k] for k in alive]
    for result in made.results:
        result.owner = made
    return made
