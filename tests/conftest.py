import sys
from pathlib import Path

import hypothesis
import pytest

# The same examples on every run, however slow the machine.
hypothesis.settings.register_profile("tapeout", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tapeout")

ON_HOST_MEMORY = ("passes", "rtl", "runtime", "sim", "testing")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden texts instead of comparing")
    parser.addoption("--build-rtl", action="store_true", help="also run tests that build the model of a core")


@pytest.fixture(autouse=True)
def kernels_may_use_host_memory(request):
    """Tests below the device run kernels on NumPy arrays: for them HBM is anywhere, also once the device is awake."""
    if Path(request.path).parent.name not in ON_HOST_MEMORY:
        yield
        return
    from tapeout import runtime

    runtime.set_arena(0, 0)
    yield
    device = sys.modules.get("tapeout.pytorch.device")
    if device is not None and device.is_initialized():
        hbm = device.arena()
        runtime.set_arena(hbm.address, hbm.size_bytes)
