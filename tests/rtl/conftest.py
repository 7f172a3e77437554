import pytest


@pytest.fixture
def model(request):
    """For tests that simulate a whole core: its model takes minutes to build the first time."""
    if not request.config.getoption("--build-rtl"):
        pytest.skip("builds the model of a core, which takes minutes: run with --build-rtl")
