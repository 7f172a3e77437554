"""Fleets: which work goes on which of the cards one has, at least cost.

Takes a fleet's description (sites, kinds of cards, workloads); gives an assignment with its distance from the bound.
`description` reads the file, `columns` says how much of a workload one instance on a kind carries, `assign` chooses
the instances, `manifests` writes them for Kueue, Volcano or Ray.
"""

from tapeout.fleet.description import Fleet, FleetError, Kind, Place, Workload, load
from tapeout.fleet.placing import FleetPlan, plan

__all__ = ["Fleet", "FleetError", "FleetPlan", "Kind", "Place", "Workload", "load", "plan"]
