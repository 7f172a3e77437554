"""Lightning's Trainer and Fabric with `accelerator="chip"`.

Lightning keeps a registry of accelerators, but names the device of a single-device run and of autocast itself, from a
fixed list. So the chip joins the registry, and the two choices are made for it here.
"""

import sys
import warnings
from typing import Any

import torch

from tapeout.errors import TapeoutError
from tapeout.pytorch.import_hooks import when_imported

CONNECTORS = {
    f"{prefix}.trainer.connectors.accelerator_connector": ("_AcceleratorConnector", "AcceleratorRegistry")
    for prefix in ("lightning.pytorch", "pytorch_lightning")
} | {
    f"{prefix}.connector": ("_Connector", "ACCELERATOR_REGISTRY") for prefix in ("lightning.fabric", "lightning_fabric")
}
"""Modules that choose devices, with the class that chooses and the registry it asks."""


def install() -> None:
    """Join each of Lightning's packages once it is imported."""
    for name in CONNECTORS:
        when_imported(name, lambda name=name: _join(name))  # type: ignore[misc]


def _join(name: str) -> None:
    module, (connector_name, registry_name) = sys.modules[name], CONNECTORS[name]
    connector = getattr(module, connector_name)
    accelerator = _accelerator(module.Accelerator)
    getattr(module, registry_name).register("chip", accelerator, description="The chip of Tapeout")
    choose_strategy, make_precision = connector._choose_strategy, connector._check_and_init_precision

    def choose(self: Any) -> Any:
        if isinstance(self.accelerator, accelerator) and self._num_nodes_flag == 1 and len(self._parallel_devices) == 1:
            return module.SingleDeviceStrategy(device=self._parallel_devices[0])
        return choose_strategy(self)

    def make(self: Any) -> Any:
        if not isinstance(self.accelerator, accelerator):
            return make_precision(self)
        with warnings.catch_warnings():  # of the scaler for CUDA, which is thrown away
            warnings.simplefilter("ignore")
            made = make_precision(self)
        if type(made) is module.MixedPrecision and made.device == "cuda":
            return type(made)(made.precision, "chip")
        return made

    connector._choose_strategy, connector._check_and_init_precision = choose, make


def _accelerator(base: type) -> type:
    class ChipAccelerator(base):
        """Devices `chip:0`, `chip:1`, … of this process."""

        def setup_device(self, device: torch.device) -> None:
            if device.type != "chip":
                raise TapeoutError(f'accelerator="chip" was given the device {device}')
            torch.chip.set_device(device)  # type: ignore[attr-defined]

        def teardown(self) -> None:
            pass

        def get_device_stats(self, device: Any) -> dict[str, Any]:
            return dict(torch.accelerator.memory_stats(device))

        @staticmethod
        def parse_devices(devices: Any) -> list[int]:
            """Indices of the chips that `devices` means: a number of them, -1 for all, or a list of indices."""
            count = torch.chip.device_count()  # type: ignore[attr-defined]
            if isinstance(devices, str):
                parts = [part for part in devices.split(",") if part.strip()]
                devices = [int(part) for part in parts] if "," in devices else int(devices)
            chosen = (
                list(devices) if isinstance(devices, list | tuple) else list(range(count if devices == -1 else devices))
            )
            if not chosen or max(chosen) >= count or min(chosen) < 0:
                raise TapeoutError(f"devices={devices!r}: this process has {count} chip{'s' * (count != 1)}")
            return chosen

        @staticmethod
        def get_parallel_devices(devices: list[int]) -> list[torch.device]:
            return [torch.device("chip", index) for index in devices]

        @staticmethod
        def auto_device_count() -> int:
            return int(torch.chip.device_count())  # type: ignore[attr-defined]

        @staticmethod
        def is_available() -> bool:
            return True

        @staticmethod
        def name() -> str:
            return "chip"

    return ChipAccelerator
