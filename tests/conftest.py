from pathlib import Path

import hypothesis
import pytest

# The same examples on every run, however slow the machine.
hypothesis.settings.register_profile("tapeout", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tapeout")

WARNINGS_FAIL = (
    "chip", "cluster", "fleet", "isa", "numerics", "passes", "planning", "report", "serving", "silicon", "training",
)  # fmt: skip
"""Folders whose tests fail on a warning. The others run torch, which warns of its own plans."""

NOT_THEIR_OWN = ("default::ResourceWarning", "default::pytest.PytestUnraisableExceptionWarning")
"""Warnings that come with the garbage of an earlier test of the process."""

ON_HOST_MEMORY = ("passes", "rtl", "runtime", "sim", "testing")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden texts instead of comparing")
    parser.addoption("--build-rtl", action="store_true", help="also run tests that build the model of a core")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name in WARNINGS_FAIL:
            item.add_marker(pytest.mark.filterwarnings("error", *NOT_THEIR_OWN))


@pytest.fixture(autouse=True)
def kernels_may_use_host_memory(request):
    """Tests below the device run kernels on NumPy arrays: for them HBM is anywhere, also once the device is awake."""
    if Path(request.path).parent.name not in ON_HOST_MEMORY:
        yield
        return
    from tapeout.runtime import session

    before = session.arenas
    session.set_arenas(())
    yield
    if not session.arenas:  # else the device woke
        session.set_arenas(before)
