"""Collectives: the faster of a protocol with little latency and one with full bandwidth.

time = min over protocols of (start + hops x latency + bytes on a link / (link rate x share of the protocol))
"""

from collections.abc import Mapping

import numpy as np

from tapeout.models.forms.base import MICRO, Form, Parts, weight_bytes
from tapeout.models.machine import Machine
from tapeout.models.tables import COLLECTIVES, Table

PARAMETERS = {
    "bandwidth": (0.8, 0.01, 1.1),  # share of the link rate at full size
    "all_to_all": (1.0, 0.1, 2.0),  # the same for all-to-all, over the others
    "launch": (6.0, 0.3, 200.0),  # µs
    "hop": (0.5, 0.01, 20.0),  # µs a further chip
    "twice": (1.5, 0.3, 10.0),  # hops of a sum over hops of a gather
    "low": (0.3, 0.02, 1.0),  # bandwidth of the low-latency protocol, in shares of the other's
    "ramp": (10.0, 0.05, 400.0),  # µs the full-bandwidth protocol adds
    "middle": (0.6, 0.05, 1.0),  # bandwidth of the protocol between them
    "middle_ramp": (3.0, 0.02, 200.0),
}


def time(machine: Machine, p: Mapping[str, float], table: Table) -> Parts:
    chips, name = table["num_gpus"], table.kind.name
    size = table["message_size"] * weight_bytes(table.dtype)
    reduces = name == "all_reduce"
    sent = size * (chips - 1) / chips * (2 if reduces else 1)
    share = p["bandwidth"] * (p["all_to_all"] if name == "alltoall" else 1.0)
    rate = machine.link_byte_per_s * share
    start = (p["launch"] + p["hop"] * (chips - 1) * (p["twice"] if reduces else 1.0)) * MICRO
    low = sent / (rate * p["low"])
    middle = p["middle_ramp"] * MICRO + sent / (rate * max(p["middle"], p["low"]))
    full = p["ramp"] * MICRO + sent / rate
    transfer = np.minimum(np.minimum(low, middle), full)
    return Parts(
        seconds=start + transfer,
        roofline=sent / machine.link_byte_per_s,
        bounds={"link": transfer, "launch": start},
        hints={
            "sent": np.log2(sent),
            "share": np.log2(size / chips),
            "which": np.full(len(table), float(COLLECTIVES.index(name))),
        },
    )


FORM = Form("collective", time, PARAMETERS, ("message_size",))
