"""The vector units that generated code and the C++ parts use, as TAPEOUT_HOST_FEATURES says."""

import pytest

from tapeout.errors import TapeoutError
from tapeout.host import features as host_features


def host_with(monkeypatch, names, machine="x86_64"):
    monkeypatch.setattr(host_features.llvm, "get_host_cpu_features", lambda: dict.fromkeys(names, True))
    monkeypatch.setattr(host_features.platform, "machine", lambda: machine)


AVX2 = ("avx2", "f16c", "fma")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl")


@pytest.mark.parametrize(
    ("names", "machine", "levels"),
    [
        (AVX512, "x86_64", ("avx512", "avx2", "baseline")),
        (AVX2, "x86_64", ("avx2", "baseline")),
        (("avx2", "f16c"), "x86_64", ("baseline",)),
        ((*AVX2, "avx512f"), "AMD64", ("avx2", "baseline")),
        (("neon",), "aarch64", ("baseline",)),
    ],
)
def test_levels_of_a_host(monkeypatch, names, machine, levels):
    host_with(monkeypatch, names, machine)
    assert host_features.levels() == levels
    monkeypatch.delenv(host_features.VARIABLE, raising=False)
    assert host_features.chosen_level() == levels[0]
    for level in levels:
        monkeypatch.setenv(host_features.VARIABLE, level)
        assert host_features.chosen_level() == level


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "sse",
            "TAPEOUT_HOST_FEATURES='sse' is no set of host features; avx512, avx2 or baseline is allowed",
        ),
        ("", "TAPEOUT_HOST_FEATURES='' is no set of host features; avx512, avx2 or baseline is allowed"),
        (
            "avx512",
            "TAPEOUT_HOST_FEATURES='avx512' is more than this host has; avx2 or baseline can be chosen here",
        ),
    ],
)
def test_what_is_not_there_is_refused(monkeypatch, value, message):
    host_with(monkeypatch, AVX2)
    monkeypatch.setenv(host_features.VARIABLE, value)
    with pytest.raises(TapeoutError) as caught:
        host_features.chosen_level()
    assert str(caught.value) == message


def test_lower_levels_have_narrower_registers_and_caches_of_their_own(monkeypatch):
    found = {}
    for level in host_features.levels():
        monkeypatch.setenv(host_features.VARIABLE, level)
        found[level] = host_features.host_features.__wrapped__()
    assert [level for level, features in found.items() if features.level != level] == []
    widths = [features.vector_bytes for features in found.values()]
    assert widths == sorted(set(widths), reverse=True)
    assert len({(features.cpu, features.attributes) for features in found.values()}) == len(found)
    assert len({features.compiler_flags for features in found.values()}) == len(found)
