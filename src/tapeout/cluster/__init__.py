"""Clusters: how chips are joined and what their collectives cost."""

from tapeout.cluster.collectives import CollectiveTime, collective_time
from tapeout.cluster.description import OPERATIONS, Cluster, Level, Protocol, check_links, of_links
from tapeout.cluster.loading import CLUSTER_VARIABLE, load, named, shipped
from tapeout.cluster.reference import REFERENCE_CLUSTERS

__all__ = [
    "CLUSTER_VARIABLE",
    "OPERATIONS",
    "REFERENCE_CLUSTERS",
    "Cluster",
    "CollectiveTime",
    "Level",
    "Protocol",
    "check_links",
    "collective_time",
    "load",
    "named",
    "of_links",
    "shipped",
]
