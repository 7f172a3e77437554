"""Manifests for Volcano: a queue for each workload with its cards as capability; training runs are gangs."""

from collections.abc import Mapping
from typing import Any

from tapeout.fleet.description import Train
from tapeout.fleet.manifests import pods
from tapeout.fleet.placing import FleetPlan

SCHEDULER = "volcano"


def documents(plan: FleetPlan) -> list[Mapping[str, Any]]:
    """Raises FleetError if a kind has no resource or a workload no image."""
    pods.check(plan)
    found: list[Mapping[str, Any]] = []
    for workload in plan.fleet.workloads:
        cards: dict[str, int] = {}
        for kind, count in pods.quotas(plan, workload).items():
            resource = pods.resource(next(use for use in plan.kinds if use.kind.name == kind))
            cards[resource] = cards.get(resource, 0) + count
        found.append(
            {
                "apiVersion": "scheduling.volcano.sh/v1beta1",
                "kind": "Queue",
                "metadata": {"name": pods.slug(workload.name)},
                "spec": {"weight": 1, "reclaimable": False, "capability": cards, "deserved": cards},
            }
        )
    for placement in plan.placements:
        name, queue = pods.part_name(plan, placement), pods.slug(placement.workload.name)
        count = pods.shape(placement)[0]
        if not isinstance(placement.workload, Train):
            spec = pods.pod(plan, placement, schedulerName=SCHEDULER)
            found.append(pods.deployment(name, count, spec, {}, {"scheduling.volcano.sh/queue-name": queue}))
            continue
        found.append(
            {
                "apiVersion": "batch.volcano.sh/v1alpha1",
                "kind": "Job",
                "metadata": pods.metadata(name),
                "spec": {
                    "schedulerName": SCHEDULER,
                    "queue": queue,
                    "minAvailable": count,
                    "policies": [{"event": "PodEvicted", "action": "RestartJob"}],
                    "tasks": [
                        {
                            "name": "node",
                            "replicas": count,
                            "template": {"spec": pods.pod(plan, placement, restartPolicy="Never")},
                        }
                    ],
                },
            }
        )
    return found
