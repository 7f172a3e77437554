"""Which launch a launch is, and what the last-level SRAM keeps from one to the next."""

import ctypes
import struct

import numpy as np

from tapeout.runtime.launch_times import BLOCK_WORDS, Backlog, library

SRAM_BYTES = 100
TENSORS = 4
WORDS = 2 * TENSORS
Words = ctypes.POINTER(ctypes.c_int64)


@ctypes.CFUNCTYPE(ctypes.c_int64, Words, ctypes.c_void_p, ctypes.c_int64, Words)
def place(words, _, count, placed):
    """The words are tensors' addresses and bytes; all addresses become the same."""
    tensors = [(words[n], words[n + 1]) for n in range(0, count, 2) if words[n]]
    numbers = [*(0 if n % 2 == 0 else words[n] for n in range(count)), 0]
    for address, size in tensors:
        numbers += address, size, 0
    for n, number in enumerate(numbers):
        placed[n] = number
    return len(tensors)


class Launches:
    def __init__(self):
        self.backlog = Backlog()
        self.program = library().tapeout_timed_program(bytes(WORDS), WORDS, SRAM_BYTES)
        self.place = ctypes.cast(place, ctypes.c_void_p)

    def words(self, tensors):
        numbers = [number for tensor in tensors for number in tensor]
        return struct.pack(f"<{WORDS}q", *numbers, *[0] * (WORDS - len(numbers)))

    def identify(self, *tensors, data=None):
        out = np.empty(3 + WORDS + 1 + BLOCK_WORDS * WORDS, np.int64)
        words = self.words(tensors)
        library().tapeout_identify(self.backlog.handle, self.program, words, data, self.place, out.ctypes.data)
        blocks = out[3 + WORDS + 1 :][: BLOCK_WORDS * out[2]].reshape(-1, BLOCK_WORDS)
        return out[:2].tobytes(), blocks[:, 3].astype(bool).tolist()

    def warm(self, *tensors):
        return self.identify(*tensors)[1]

    def submit(self, *tensors, data=None):
        words = self.words(tensors)
        return library().tapeout_submit(self.backlog.handle, self.program, words, data, 7, self.place, False)

    def launch(self, tensors, resident, brought_bytes):
        digest, _ = self.identify(*tensors)
        library().tapeout_know(digest, 10, 3, brought_bytes, bytes(resident), len(resident), False)
        assert self.submit(*tensors)


def test_the_sram_keeps_what_was_used_last():
    now = Launches()
    now.launch([(1000, 40), (2000, 40), (3000, 10)], [True, True, False], brought_bytes=80)
    assert now.warm((1000, 40), (2000, 40), (3000, 10)) == [True, True, False]
    assert now.warm((1000, 20)) == [False]  # another tensor at the same place
    now.launch([(2000, 40), (4000, 60)], [True, True], brought_bytes=60)
    assert now.warm((1000, 40), (2000, 40), (4000, 60)) == [True, True, True]
    now.launch([(4000, 60), (5000, 50)], [True, False], brought_bytes=50)
    assert now.warm((1000, 40), (2000, 40), (4000, 60)) == [False, True, True]
    now.launch([(6000, 200)], [False], brought_bytes=200)
    assert now.warm((2000, 40), (4000, 60)) == [False, False]
    now.launch([(7000, 10)], [True], brought_bytes=10)
    now.backlog.empty_sram()
    assert now.warm((7000, 10)) == [False]


def test_launches_are_told_apart_by_what_their_time_depends_on_and_by_nothing_else():
    now = Launches()
    now.launch([(1000, 40), (2000, 20)], [False, False], brought_bytes=0)
    assert now.submit((5000, 40), (6000, 20))  # tensors elsewhere
    assert not now.submit((1000, 40), (2000, 24))
    assert not now.submit((1000, 40))
    assert not now.submit((1000, 40), (2000, 20), data=bytes(16))  # what memory held
    now.launch([(5000, 40)], [True], brought_bytes=40)
    assert not now.submit((5000, 40), (6000, 20))  # the first is in the SRAM
    assert now.backlog.take() == [[10, 3, 7]] * 3
    assert now.backlog.take() == []


def test_a_launch_that_rests_on_assumptions_is_told_in_full():
    now = Launches()
    tensors = [(1000, 40)]
    digest, _ = now.identify(*tensors)
    library().tapeout_know(digest, 10, 3, 40, bytes([True]), 1, True)
    assert not now.submit(*tensors)
    words = now.words(tensors)
    assert library().tapeout_submit(now.backlog.handle, now.program, words, None, 7, now.place, True)
    assert now.warm(*tensors) == [True]
    assert now.backlog.take() == []
