"""Manifests for Kueue (v1beta2): a flavor for each kind, a queue for each workload with its cards as quota.

What no workload was given is in the queue `spare` of the same cohort, from which each may borrow.
"""

from collections.abc import Mapping
from typing import Any

from tapeout.fleet.description import Train
from tapeout.fleet.manifests import pods
from tapeout.fleet.placing import FleetPlan

API = "kueue.x-k8s.io/v1beta2"
COHORT = "fleet"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def documents(plan: FleetPlan) -> list[Mapping[str, Any]]:
    """Raises FleetError if a kind has no resource or a workload no image."""
    pods.check(plan)
    found: list[Mapping[str, Any]] = [
        {
            "apiVersion": API,
            "kind": "ResourceFlavor",
            "metadata": {"name": pods.slug(kind.name)},
            "spec": {"nodeLabels": pods.labels(kind)},
        }
        for kind in plan.fleet.kinds
    ]
    spare = {use.kind.name: use.slack for use in plan.kinds if use.slack}
    if spare:
        found.append(_queue(plan, "spare", spare))
    for workload in plan.fleet.workloads:
        name = pods.slug(workload.name)
        found.append(_queue(plan, name, pods.quotas(plan, workload)))
        found.append(
            {
                "apiVersion": API,
                "kind": "LocalQueue",
                "metadata": pods.metadata(name),
                "spec": {"clusterQueue": name},
            }
        )
    for placement in plan.placements:
        name, queue = pods.part_name(plan, placement), pods.slug(placement.workload.name)
        count = pods.shape(placement)[0]
        if not isinstance(placement.workload, Train):
            found.append(pods.deployment(name, count, pods.pod(plan, placement), {QUEUE_LABEL: queue}, {}))
            continue
        found.append(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": pods.metadata(name, labels={QUEUE_LABEL: queue}),
                "spec": {
                    "suspend": True,  # Kueue lets it go
                    "parallelism": count,
                    "completions": count,
                    "completionMode": "Indexed",
                    "template": {"spec": pods.pod(plan, placement, restartPolicy="Never")},
                },
            }
        )
    return found


def _queue(plan: FleetPlan, name: str, quotas: Mapping[str, int]) -> Mapping[str, Any]:
    """A ClusterQueue. Kueue takes the first flavor that fits, so their order is ours; flavors of one resource share a
    group."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for kind, count in quotas.items():
        use = next(use for use in plan.kinds if use.kind.name == kind)
        resource = pods.resource(use)
        quota = {"name": resource, "nominalQuota": count}
        groups.setdefault(resource, []).append({"name": pods.slug(kind), "resources": [quota]})
    return {
        "apiVersion": API,
        "kind": "ClusterQueue",
        "metadata": {"name": name},
        "spec": {
            "cohortName": COHORT,
            "namespaceSelector": {},
            "flavorFungibility": {"whenCanBorrow": "TryNextFlavor"},
            "resourceGroups": [
                {"coveredResources": [resource], "flavors": flavors} for resource, flavors in groups.items()
            ],
        },
    }
