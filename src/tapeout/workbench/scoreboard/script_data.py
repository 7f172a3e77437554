"""Small data of made-up numbers, in the form that other people's scripts read: each takes the folder to lay it in."""

import gzip
import io
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

IMAGE_COUNTS = {"train": 64, "t10k": 32}
NODE_COUNT, FEATURE_COUNT, CLASS_COUNT = 1640, 16, 7
WORDS = ("the", "a", "cat", "dog", "sea", "sails", "runs", "sleeps", "under", "over", "old", "blue", ".", "<unk>")


def nothing(folder: Path) -> None:
    pass


def mnist(*roots: str) -> Callable[[Path], None]:
    """Digits as torchvision keeps them, which then downloads none."""

    def lay(folder: Path) -> None:
        random = np.random.default_rng(1)
        for root in roots:
            raw = folder / root / "MNIST" / "raw"
            raw.mkdir(parents=True, exist_ok=True)
            for part, count in IMAGE_COUNTS.items():
                labels = (np.arange(count) % 10).astype(np.uint8)
                images = (random.integers(0, 64, (count, 28, 28)) + labels[:, None, None] * 19).astype(np.uint8)
                for name, header, values in (
                    ("images-idx3", struct.pack(">IIII", 2051, count, 28, 28), images),
                    ("labels-idx1", struct.pack(">II", 2049, count), labels),
                ):
                    (raw / f"{part}-{name}-ubyte").write_bytes(header + values.tobytes())
                    (raw / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))

    return lay


def citations(folder: Path) -> None:
    """A graph in the form of Cora, and in place of the package `requests` one that answers with it."""
    random = np.random.default_rng(2)
    content = [
        f"{node} {' '.join(map(str, random.integers(0, 2, FEATURE_COUNT)))} class{node % CLASS_COUNT}"
        for node in range(NODE_COUNT)
    ]
    edges = {tuple(pair) for pair in random.integers(0, NODE_COUNT, (NODE_COUNT, 2)).tolist()}
    cites = [f"{cited} {citing}" for cited, citing in sorted(edges)]
    cora = folder / "cora"
    cora.mkdir()
    (cora / "cora.content").write_text("\n".join(content) + "\n", "utf-8")
    (cora / "cora.cites").write_text("\n".join(cites) + "\n", "utf-8")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(cora, "cora")
    (folder / "cora.tgz").write_bytes(packed.getvalue())
    (folder / "requests.py").write_text(
        "class get:\n"
        "    def __init__(self, url, stream):\n        self.raw = open(url.rpartition('/')[2], 'rb')\n"
        "    def __enter__(self):\n        return self\n"
        "    def __exit__(self, *error):\n        self.raw.close()\n",
        "utf-8",
    )


def words(place: str) -> Callable[[Path], None]:
    """Text in three files."""

    def lay(folder: Path) -> None:
        random = np.random.default_rng(3)
        (folder / place).mkdir(parents=True, exist_ok=True)
        for part, count in (("train", 60), ("valid", 20), ("test", 20)):
            lines = [" ".join(random.choice(WORDS, 12)) for _ in range(count)]
            (folder / place / f"{part}.txt").write_text("\n".join(lines) + "\n", "utf-8")

    return lay


def pictures(*places: str) -> Callable[[Path], None]:
    """Two pictures in each folder."""

    def lay(folder: Path) -> None:
        from PIL import Image

        random = np.random.default_rng(4)
        for place in places:
            (folder / place).mkdir(parents=True)
            for number in range(2):
                pixels = random.integers(0, 256, (256, 256, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / place / f"{number}.png")

    return lay


def tokens(place: str) -> Callable[[Path], None]:
    """Token numbers of 16 bits in two files."""

    def lay(folder: Path) -> None:
        random = np.random.default_rng(5)
        (folder / place).mkdir(parents=True, exist_ok=True)
        for part in ("train", "val"):
            random.integers(0, 65, 2000).astype(np.uint16).tofile(folder / place / f"{part}.bin")

    return lay
