"""Driver half of the back end: the device as Triton sees it."""

from typing import Any

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase


class ChipDriver(DriverBase):
    """Made active by `import tapeout`; never claims to be active by itself, so a machine's real GPU stays Triton's default."""

    @classmethod
    def is_active(cls) -> bool:
        return False

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("chip", "inference", 1)

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("chip")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError
