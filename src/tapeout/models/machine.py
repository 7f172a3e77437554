"""Facts of a machine that a physical form needs, as plain numbers, taken from an `Accelerator`."""

from dataclasses import dataclass

from tapeout.accelerator import Accelerator
from tapeout.figures import Estimate, Provenance
from tapeout.models.tables import COLLECTIVES, PEAK_OF_DTYPE, ModelError

CLASS_PRIORS = {"compute_units": 64.0, "last_level_mb": 64.0, "scaleup_gb_per_s": 100.0}
"""Values that `--assume` takes for unpublished figures: middling values of the catalog's data-centre chips."""
USUAL_CLOCK_HZ = 1.98e9
"""The boost clock of the chips that most rows are of; taken for chips whose clock was not published."""
WITHOUT_GRAPHS = ("xpu",)
"""PyTorch devices whose software captured no graphs when its rows were measured: each operator is a call of its own."""


@dataclass(frozen=True)
class Machine:
    """Figures of one chip for one element type. `provenance` is the weakest of theirs, and `weak` names those that are
    assumed. `array_rows`, `array_columns`: the least tile that a described chip's matrix engine computes.
    `watts_per_tflops`: what the chip may draw for each 10^12 operations a second of half-precision peak; 1 where its
    power is unknown."""

    name: str
    peak_flop_per_s: float
    half_flop_per_s: float
    memory_byte_per_s: float
    last_level_bytes: float
    unit_count: float
    link_byte_per_s: float
    provenance: Provenance
    weak: tuple[str, ...] = ()
    array_rows: float = 1.0
    array_columns: float = 1.0
    is_described: bool = False
    watts_per_tflops: float = 1.0
    copies_meanwhile: bool = False
    has_stacks: bool = False
    clock_hz: float = USUAL_CLOCK_HZ
    captures_graphs: bool = True
    widens: bool = False

    @property
    def slowness(self) -> float:
        """What a fixed number of cycles takes, over what they take at the usual clock."""
        return USUAL_CLOCK_HZ / self.clock_hz

    @property
    def unit_flop_per_s(self) -> float:
        """Half-precision peak of one compute unit."""
        return self.half_flop_per_s / self.unit_count


def machine(chip: Accelerator, dtype: str, kind: str, *, assume: bool = False) -> Machine:
    """The figures that operators of a kind and element type need of a chip.

    Raises ModelError that names a missing figure and the ways to give it, unless `assume` takes the class's prior.
    """
    weakest = Provenance.MODELLED  # a form is a model, whatever its figures are
    weak: list[str] = []

    def known(column: str, figure: Estimate | None) -> float:
        nonlocal weakest
        if figure is not None:
            weakest = max(weakest, figure.provenance)
            if figure.provenance is Provenance.ASSUMED:
                weak.append(column)
            return figure.value
        if assume and column in CLASS_PRIORS:
            weakest = Provenance.ASSUMED
            weak.append(column)
            return CLASS_PRIORS[column]
        more = " or let --assume take the class's usual value" if column in CLASS_PRIORS else ""
        raise ModelError(
            f"{chip.name} has no {column}, which the time of {kind} needs; add it in a table of your own (--catalog), "
            f"fit parameters to measured rows (`tapeout models fit`){more or ', or name a chip of the same kind'}"
        )

    operands = PEAK_OF_DTYPE.get(dtype, dtype)
    matrix = kind in ("gemm", "moe", "convolution")
    half = known("half_tflops", _in(chip.peak.get("bfloat16") or chip.peak.get("float16"), "op/s"))
    peak, widens = half, False
    if matrix or kind.endswith("attention") or kind.endswith("mla"):
        peak_of = chip.peak.get(operands)
        if peak_of is None and operands in ("float8", "float4", "int8"):
            # Without the narrow type the weights are widened and the product runs at half precision.
            peak_of = chip.peak.get("float8") if operands == "float4" else None
            widens = peak_of is None
            peak_of = peak_of or chip.peak.get("bfloat16")
        if peak_of is None:
            have = ", ".join(chip.peak)
            raise ModelError(f"{chip.name} has no peak rate for {dtype}; it has {have or 'none'}")
        peak = known(operands, _in(peak_of, "op/s"))
    link_rate = 0.0
    if kind in COLLECTIVES:
        link_rate = known("scaleup_gb_per_s", _in(chip.links.rate, "GB/s")) * 1e9
    memory = known("memory_gb_per_s", _in(chip.dram.bandwidth, "B/s"))
    last_level = known("last_level_mb", _in(chip.last_level.size, "MiB")) * 2**20
    units = known("compute_units", chip.compute_units)
    return Machine(
        name=chip.name,
        peak_flop_per_s=peak,
        half_flop_per_s=half,
        memory_byte_per_s=memory,
        last_level_bytes=last_level,
        unit_count=units,
        link_byte_per_s=link_rate,
        provenance=weakest,
        weak=tuple(dict.fromkeys(weak)),
        array_rows=chip.design.core.matrix.row_count if chip.design is not None else 1.0,
        array_columns=chip.design.core.matrix.column_count if chip.design is not None else 1.0,
        is_described=chip.design is not None,
        captures_graphs=chip.software.torch_device is None or chip.software.torch_device.value not in WITHOUT_GRAPHS,
        widens=widens,
        clock_hz=chip.boost_clock.to("MHz").value * 1e6 if chip.boost_clock is not None else USUAL_CLOCK_HZ,
        has_stacks=chip.dram.kind is not None and chip.dram.kind.value.upper().startswith("HBM"),
        copies_meanwhile=chip.async_copy is not None and chip.async_copy.value,
        watts_per_tflops=chip.tdp.to("W").value / (half / 1e12) if chip.tdp is not None else 1.0,
    )


def _in(figure: Estimate | None, unit: str) -> Estimate | None:
    return figure.to(unit) if figure is not None else None
