"""When the chip steps forward as vLLM's platform, and when it leaves vLLM to others."""

import importlib
import importlib.util
import sys
import types
from importlib.metadata import EntryPoint

import pytest

from tapeout.errors import TapeoutError
from tapeout.serving import vllm as plugin

PLATFORM = "tapeout.serving.vllm.platform.ChipPlatform"
OURS = EntryPoint("chip", "tapeout.serving.vllm:register", plugin.GROUP)


@pytest.fixture
def vllm(monkeypatch):
    """A vLLM that finds these devices, beside these plug-ins."""

    def install(*devices, plugins=(OURS,)):
        found = {str(number): lambda device=device: device for number, device in enumerate(devices)}
        platforms = types.SimpleNamespace(builtin_platform_plugins=found)
        monkeypatch.setitem(sys.modules, "vllm", types.SimpleNamespace(platforms=platforms))
        monkeypatch.setattr(plugin.importlib.metadata, "entry_points", lambda group: plugins)

    monkeypatch.delenv(plugin.VARIABLE, raising=False)
    return install


def test_the_chip_serves_where_nothing_else_is(vllm):
    vllm(None, None)
    assert plugin.register() == PLATFORM


def test_an_installed_vllm_for_gpus_keeps_its_gpus(vllm, monkeypatch):
    vllm(None, "vllm.platforms.cuda.CudaPlatform")
    assert plugin.register() is None
    monkeypatch.setenv(plugin.VARIABLE, "1")
    assert plugin.register() == PLATFORM


def test_another_plug_in_keeps_its_place(vllm):
    vllm(None, plugins=(OURS, EntryPoint("ascend", "vllm_ascend:register", plugin.GROUP)))
    assert plugin.register() is None


def test_the_chip_can_be_forbidden(vllm, monkeypatch):
    vllm(None)
    monkeypatch.setenv(plugin.VARIABLE, "0")
    assert plugin.register() is None
    monkeypatch.setenv(plugin.VARIABLE, "yes")
    with pytest.raises(TapeoutError, match="TAPEOUT_VLLM='yes' is not known"):
        plugin.register()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_has_what_the_plug_in_takes_from_it():
    from vllm import platforms

    from tapeout.serving.vllm.passes import ChipPassManager
    from tapeout.serving.vllm.platform import WORKER, ChipPlatform

    assert set(platforms.builtin_platform_plugins) >= {"cuda", "rocm", "cpu"}
    assert ChipPlatform.get_pass_manager_cls() == f"{ChipPassManager.__module__}.ChipPassManager"
    module, _, name = WORKER.rpartition(".")
    assert hasattr(importlib.import_module(module), name)
