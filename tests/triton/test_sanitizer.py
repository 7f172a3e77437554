"""The sanitizer finds seeded mistakes, names their places, and is silent on kernels that are right.

It must be on before the device wakes, so each batch runs in a process of its own.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).with_name("sanitized_kernels.py")


def findings(mode: str, *cases: str) -> dict[str, str]:
    """What the sanitizer says of each case; "" where nothing."""
    command = [sys.executable, str(KERNELS), mode, *cases]
    done = subprocess.run(command, capture_output=True, text=True, cwd=KERNELS.parents[2])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def race(mnemonic, place, how):
    return (
        f"race: {mnemonic} touches # ({place}), which program (0, 0, 0) {how} in the same launch, and no atomic orders "
        "the two"
    )


SEEDED = {  # case: (function that holds the line, the line, the finding with its numbers cut out)
    "beyond_the_end": ("tl.load(x + i)", "load at # is outside every tensor: 0 bytes after the end of 'x' (400 bytes)"),
    "before_the_start": (
        "tl.load(x + i - 8)",
        "load at # is outside every tensor: 32 bytes before the start of 'x' (400 bytes)",
    ),
    "gather_outside": (
        "tl.load(x + tl.load(index + i))",
        "load_indexed at # is outside every tensor: 80 bytes after the end of 'x' (400 bytes)",
    ),
    "store_outside": (
        "tl.store(out + i, 1.0)",
        "store at # is outside every tensor: 0 bytes after the end of 'out' (400 bytes)",
    ),
    "atomic_outside": (
        "tl.atomic_add(out + i, 1.0)",
        "atomic at # is outside every tensor: 0 bytes after the end of 'out' (400 bytes)",
    ),
    "freed_tensor": (
        "tl.load(x + i)",
        "load at # is outside every tensor: 512 bytes after the end of 'out' (512 bytes)",
    ),
    "unwritten": ("tl.load(x + i)", "load reads #, which nothing has written (byte 0 of 512 of 'x')"),
    "unwritten_in_part": ("tl.load(x + i)", "load reads #, which nothing has written (byte 256 of 512 of 'x')"),
    "gather_past_the_tile": ("tl.gather(", "gather reads scratchpad byte #, which this program has not written"),
    "misplaced_load": ("tl.store(out + i", "store reads scratchpad byte #, which this program has not written"),
    "two_write": (
        "tl.store(out + i, pid)",
        race("store", "byte 0 of 512 of 'out'", "wrote"),
    ),
    "one_reads": (
        "tl.load(x + (i + shift) % N)",
        race("load_indexed", "byte 0 of 512 of 'x'", "wrote"),
    ),
    "written_after_reading": (
        "tl.store(x + pid, total)",
        race("store", "byte 4 of 512 of 'x'", "read"),
    ),
    "plain_beside_atomic": (
        "tl.store(out, 1.0)",
        race("store", "byte 0 of 512 of 'out'", "updated"),
    ),
    "write_after_unlocking": (
        "tl.store(total + 1, value)",
        race("store", "byte 4 of 512 of 'total'", "wrote"),
    ),
    "half_words": (
        "tl.store(out + tl.arange(0, 4) + pid * 3, value)",
        race("store", "byte 6 of 256 of 'out'", "wrote"),
    ),
}


def test_seeded_mistakes_are_found():
    found = findings("1", *SEEDED)
    source = KERNELS.read_text().splitlines()
    for case, (line, expected) in SEEDED.items():
        place, _, rest = found[case].partition(f": {case}: program ")
        assert rest, f"{case}: {found[case] or 'silent'}"
        file, _, number = place.rpartition(":")
        assert file.endswith(KERNELS.name)
        assert line in source[int(number) - 1], case
        sentence = rest.partition("): ")[2]
        assert re.sub("0x[0-9a-f]+", "#", sentence) == expected, case


def test_births_of_special_values_are_found():
    found = findings("values", "nan_born", "infinity_born", "infinity_by_rounding", "dot_overflows", "specials_pass_on")
    assert "nan_born: program (0, 0, 0): map1 makes a NaN of ordinary numbers" in found["nan_born"]
    assert "map2 makes an infinity of ordinary numbers" in found["infinity_born"]
    assert "convert makes an infinity of ordinary numbers" in found["infinity_by_rounding"]
    assert "matrix_multiply makes an infinity of ordinary numbers" in found["dot_overflows"]
    assert found["specials_pass_on"] == ""


@pytest.mark.parametrize("mode", ["1", "values"])
def test_silent_on_kernels_that_are_right(mode):
    cases = (
        "vector_add", "matmul", "softmax_on_device", "locks", "counter", "neighbours_in_two_launches", "scatter_apart",
        "half_words_apart", "spilled_tiles", "look_back", "host_writes", "bytes_in_one_word",
    )  # fmt: skip
    assert findings(mode, *cases) == dict.fromkeys(cases, "")


def test_flag_of_the_command(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(KERNELS.parent)!r})\nimport torch, tapeout\n"
        "from sanitized_kernels import store_outside\nstore_outside[(1,)](torch.ones(100, device='chip'), N=128)\n"
    )
    command = [sys.executable, "-c", "from tapeout.cli import app; app()", "run", "--sanitize", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=KERNELS.parents[2])
    assert done.returncode == 1
    assert "store_outside: program (0, 0, 0): store at " in done.stderr
    assert done.stderr.endswith(" is outside every tensor: 0 bytes after the end of 'out' (400 bytes)\n")


def test_a_choice_that_is_none_is_refused():
    command = [sys.executable, str(KERNELS), "always", "vector_add"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=KERNELS.parents[2])
    assert "TAPEOUT_SANITIZE='always' is not a choice; 1 and values are, and 0 for no checks" in done.stderr


def test_too_late():
    code = (
        "import tapeout, torch\nx = torch.ones(4, device='chip')\nfrom tapeout.runtime import sanitizer\n"
        "sanitizer.enable()\nprint(x.sum())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=KERNELS.parents[2])
    assert "TAPEOUT_SANITIZE was set too late: the sanitizer must be on before the chip is first used" in done.stderr
