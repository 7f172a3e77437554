"""The vLLM that serving is made for, and what to do where it is not installed."""

import importlib.metadata
import importlib.util

from tapeout.errors import TapeoutError

VLLM_VERSION = "0.33.0"
INSTALL = (
    'pip install "setuptools>=77.0.3,<81" setuptools-scm setuptools-rust wheel cmake jinja2 && '
    f"VLLM_TARGET_DEVICE=empty VLLM_VERSION_OVERRIDE={VLLM_VERSION} "
    f"pip wheel --no-deps --no-binary vllm --no-build-isolation vllm=={VLLM_VERSION}",
    f"pip install ./vllm-{VLLM_VERSION}-*.whl --editable '.[serve]'",
)
"""Two commands: a wheel of vLLM without kernels of its own, which is pure Python and needs no compiler, and the rest.
PyPI's own wheel is CUDA's; where PyTorch is the CPU's it cannot be imported."""


class VllmMissing(TapeoutError, ImportError):
    """vLLM is not installed, or another release of it."""


def require_vllm() -> None:
    """Raises VllmMissing, which tells the two commands, unless the vLLM that this was made for can be imported."""
    commands = "\n".join(f"    {command}" for command in INSTALL)
    if importlib.util.find_spec("vllm") is None:
        raise VllmMissing(
            f"serving runs vLLM {VLLM_VERSION}, which is not installed. Two commands in Tapeout's source folder:\n"
            f"{commands}"
        )
    found = importlib.metadata.version("vllm").partition("+")[0]
    if found != VLLM_VERSION:
        raise VllmMissing(
            f"serving is made for vLLM {VLLM_VERSION}; {found} is installed. In an environment of its own:\n{commands}"
        )
