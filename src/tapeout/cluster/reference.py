"""The clusters that ship with Tapeout. Every figure is a design choice or an assumption."""

from tapeout.cluster.description import PROTOCOLS, Cluster, Level

_GB = 1_000_000_000

_BOARD = Level(name="board", size=8, fabric="switch", bytes_per_s=900 * _GB, latency_ns=700)

board8 = Cluster(name="board8", chip="training", levels=(_BOARD,), protocols=PROTOCOLS)

rack72 = Cluster(
    name="rack72",
    chip="training",
    levels=(
        Level(name="rack", size=72, fabric="switch", bytes_per_s=900 * _GB, latency_ns=900, reduces_in_switch=True),
    ),
    protocols=PROTOCOLS,
)

torus4x4x4 = Cluster(
    name="torus4x4x4",
    chip="training",
    levels=(Level(name="torus", size=64, fabric="torus", shape=(4, 4, 4), bytes_per_s=900 * _GB, latency_ns=700),),
    protocols=PROTOCOLS,
)

rail10k = Cluster(
    name="rail10k",
    chip="training",
    levels=(
        _BOARD,
        Level(name="rails", size=0, fabric="switch", bytes_per_s=50 * _GB, latency_ns=5_000),
    ),
    protocols=PROTOCOLS,
)

REFERENCE_CLUSTERS = {cluster.name: cluster for cluster in (board8, rack72, torus4x4x4, rail10k)}
