"""Files made once and kept: object code of kernels, the compiled runtime.

A file appears whole or not at all (written aside, then renamed), so processes may race and be killed at any time. An
entry carries its length and checksum; one that does not check is made again.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tapeout.host.disk_cache import directory, sweep

MAGIC = b"TAPEOBJ1"
_DIGEST_BYTES = 32


def _publish(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, "*.part")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o755)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _sealed(content: bytes) -> bytes:
    return MAGIC + hashlib.sha256(content).digest() + content


def _opened(entry: bytes) -> bytes | None:
    """The content of an entry, or None if it is not whole."""
    start = len(MAGIC) + _DIGEST_BYTES
    if not entry.startswith(MAGIC) or len(entry) < start:
        return None
    content = entry[start:]
    return content if hashlib.sha256(content).digest() == entry[len(MAGIC) : start] else None


def entry(folder: str, key: str) -> bytes | None:
    """Return what was stored under a key, or None if there is nothing or it is damaged."""
    try:
        return _opened((directory() / folder / key[:2] / key).read_bytes())
    except OSError:
        return None


def store(folder: str, key: str, content: bytes) -> None:
    """Keep content under a key. A cache that cannot be written is no error: the next process makes it again."""
    with contextlib.suppress(OSError):
        _publish(directory() / folder / key[:2] / key, lambda path: _write(path, _sealed(content)))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def found(folder: str, key: str, suffix: str) -> Path | None:
    """A file that others open by path, or None if it is not there or damaged."""
    path = directory() / folder / f"{key}{suffix}"
    with contextlib.suppress(OSError):
        if _proof(path).read_text() == hashlib.sha256(path.read_bytes()).hexdigest():
            return path
    return None


def file(folder: str, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """The same, made by `make(path)` if it is not there or damaged."""
    if (whole := found(folder, key, suffix)) is not None:
        return whole
    path = directory() / folder / f"{key}{suffix}"
    _publish(path, make)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _publish(_proof(path), lambda target: _write(target, digest.encode()))
    return path


def _proof(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
