"""Instructions that work on tiles of others, as compiled code does: pipelined loops and chains."""

from dataclasses import replace
from typing import Any

from tapeout.isa import (
    AccessPattern,
    AtomicFunction,
    Function,
    RegisterValue,
)
from tapeout.isa import definitions as isa
from tapeout.numerics.dtypes import DType
from tapeout.testing.random_instructions import Instructions
from tapeout.testing.random_writing import BASE, OUTPUT, ROTATING, TABLE, Resource, Shape


class Chains(Instructions):
    """Writes instructions that pass tiles to each other."""

    def _pipelined_loop(self) -> None:
        """Load, compute and store overlap over rotating buffers: the vector queue waits for a full buffer
        and frees it, the store queue waits for the result and frees that."""
        full, free, done, written = 60, 61, 62, 63
        count = self.source.randint(1, 6)
        buffers = self.source.randint(1, 3)
        copy_bytes = self.rotating_bytes // 6
        start = self.scratchpad_bytes - self.rotating_bytes
        extent = copy_bytes // 4
        self.drain()
        for _ in range(buffers):
            self._append(isa.VectorSync(signal_a=free))
            self._append(isa.StoreSync(signal_a=written))
        counter, source, target, stride = self.fresh(), self.fresh(), self.fresh(), self.constant(4)
        stop = self.constant(1)
        self.emit(isa.LoadImmediate(destination=ROTATING, value=0))
        self.emit(isa.LoadImmediate(destination=counter, value=count))
        self.scalar(source, Function.ADD, BASE, self.constant(4 * self.source.randint(0, 500)))
        self.scalar(target, Function.ADD, OUTPUT, self.constant(4 * self.source.randint(0, 80)))
        step = self.constant(copy_bytes)
        shape = (1, 1, 1, extent)
        tile = AccessPattern(start, (0, 0, 0, 1), ROTATING)
        result = AccessPattern(start + 3 * copy_bytes, (0, 0, 0, 1), ROTATING)
        strides = (0, 0, 0, stride)
        function = self.source.choice((Function.EXP2, Function.SIN, Function.SQRT, Function.NEG))
        again = len(self.items)
        self._append(
            isa.Load(
                dtype=DType.F32,
                base=source,
                strides=strides,
                shape=shape,
                tile=tile,
                wait_a=free,
                signal_a=full,
            )
        )
        self._append(
            isa.Map1(
                function=function,
                dtype=DType.F32,
                shape=shape,
                result=result,
                a=tile,
                wait_a=full,
                wait_b=written,
                signal_a=done,
                signal_b=free,
            )
        )
        self._append(
            isa.Store(
                dtype=DType.F32,
                base=target,
                strides=strides,
                shape=shape,
                tile=result,
                wait_a=done,
                signal_a=written,
            )
        )
        self.emit(isa.Rotate(register=ROTATING, step=copy_bytes, limit=buffers * copy_bytes))
        self.scalar(source, Function.ADD, source, step)
        self.scalar(target, Function.ADD, target, step)
        self.scalar(counter, Function.SUB, counter, stop)
        self.emit(isa.BranchNonzero(condition=counter, target=again))
        self.drain()  # before taking what is left, lest the queues go without
        for _ in range(buffers):
            self.emit(isa.Wait(semaphore=free))
            self.emit(isa.Wait(semaphore=written))

    def _chain(self) -> int:
        """Instructions that pass whole tiles of one shape through a few buffers, as compiled code does: results and
        accumulators are overwritten, updated in place or in part, and read again. Gives how many there are."""
        buffers = self._other_slots(self.source.randint(2, 4))
        batch, columns = self.source.choice((1, 2)), self.source.choice((8, 16))
        shape = (batch, self.slot_bytes // 4 // batch // columns // self.source.choice((1, 2)), columns, 1)
        count = self.source.randint(4, 12)
        kinds = (self._whole, self._part, self._product, self._update, self._copy_out)
        for _ in range(count):
            self.source.choices(kinds, (6, 2, 4, 1, 1))[0](buffers, shape)
        return count

    def _tile(self, buffer: Resource, shape: Shape) -> AccessPattern:
        """All of a buffer, row-major."""
        return AccessPattern(buffer.start, (shape[1] * shape[2], shape[2], 1, 0))

    def _whole(self, buffers: list[Resource], shape: Shape) -> None:
        result, a, b = self.source.choices(buffers, k=3)
        function = self.source.choice((Function.ADD, Function.MUL, Function.MAXIMUM, Function.NEG, Function.COPY))
        operands: dict[str, Any] = {"a": self._tile(a, shape)}
        if function.arity == 2:
            operands["b"] = self._tile(b, shape)
        kind = isa.Map2 if function.arity == 2 else isa.Map1
        made = kind(function=function, dtype=DType.F32, shape=shape, result=self._tile(result, shape), **operands)
        self.queue(made, [a, b][: function.arity], [result])

    def _part(self, buffers: list[Resource], shape: Shape) -> None:
        """Half the rows, or every other column, of a buffer."""
        result, a = self.source.sample(buffers, 2)
        target, source = self._tile(result, shape), self._tile(a, shape)
        if self._chance(0.5):
            part = (shape[0], (shape[1] + 1) // 2, shape[2], 1)
        else:
            part = (shape[0], shape[1], shape[2] // 2, 1)
            target = replace(target, strides=(*target.strides[:2], 2, 0))
        function = self.source.choice((Function.NEG, Function.COPY))
        self.queue(isa.Map1(function=function, dtype=DType.F32, shape=part, result=target, a=source), [a], [result])

    def _product(self, buffers: list[Resource], shape: Shape) -> None:
        """Mostly added to what a buffer holds."""
        accumulator, source = self.source.sample(buffers, 2)
        batch, rows, columns, _ = shape
        depth = self.source.choice((2, 4))
        steps = rows * columns
        self.queue(
            isa.MatrixMultiply(
                lhs_dtype=DType.F32,
                rhs_dtype=DType.F32,
                accumulate=self._chance(0.8),
                shape=(batch, rows, columns, depth),
                accumulator=self._tile(accumulator, shape),
                lhs=AccessPattern(source.start, (steps, columns, 0, 1)),
                rhs=AccessPattern(source.start, (steps, 0, 1, columns if rows >= depth else 0)),
            ),
            [accumulator, source],
            [accumulator],
        )

    def _update(self, buffers: list[Resource], shape: Shape) -> None:
        """An atomic that leaves some elements of what a buffer held."""
        previous, operand = self.source.sample(buffers, 2)
        few = (1, 1, shape[2], 1)
        index, index_slot = self._indices(few, DType.I32, 8, *buffers)
        (mask,) = self._other_slots(1, *buffers)
        self.queue(
            isa.Atomic(
                dtype=DType.F32,
                index_dtype=DType.I32,
                function=AtomicFunction.ADD,
                scale=4,
                base=TABLE,
                shape=few,
                tile=self._tile(operand, shape),
                other=RegisterValue(0),
                index=index,
                mask=self._pattern(mask, few, 1),
                previous=self._tile(previous, shape),
            ),
            [index_slot, mask, previous, operand],
            [previous, self.table],
        )

    def _copy_out(self, buffers: list[Resource], shape: Shape) -> None:
        source = self.source.choice(buffers)
        size = self.slot_bytes // 4
        offset = 4 * self.source.randrange(self.output.size // 4 - size + 1)
        self.queue(
            isa.Store(
                dtype=DType.F32,
                base=self._address(OUTPUT, offset),
                strides=self._stride_registers((0, 0, 0, 4)),
                shape=(1, 1, 1, size),
                tile=AccessPattern(source.start, (0, 0, 0, 1)),
            ),
            [source],
            [self.output],
        )
