"""Manifests for KubeRay: a cluster for each workload, whose worker groups are the kinds it was given.

Workers offer their cards as a resource of Ray with the kind's name, so that `@ray.remote(resources={...})` chooses one.
A training run that says its command is a RayJob, which ends with it.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from tapeout.fleet.description import Train, Workload
from tapeout.fleet.manifests import pods
from tapeout.fleet.placing import FleetPlan

API = "ray.io/v1"


def documents(plan: FleetPlan) -> list[Mapping[str, Any]]:
    """Raises FleetError if a kind has no resource or a workload no image."""
    pods.check(plan)
    found: list[Mapping[str, Any]] = []
    for workload in plan.fleet.workloads:
        cluster = _cluster(plan, workload)
        is_job = isinstance(workload, Train) and workload.command
        specification = cluster
        if is_job:
            specification = {
                "entrypoint": shlex.join(workload.command),
                "shutdownAfterJobFinishes": True,
                "rayClusterSpec": cluster,
            }
        found.append(
            {
                "apiVersion": API,
                "kind": "RayJob" if is_job else "RayCluster",
                "metadata": pods.metadata(pods.slug(workload.name)),
                "spec": specification,
            }
        )
    return found


def _cluster(plan: FleetPlan, workload: Workload) -> dict[str, Any]:
    groups = []
    for placement in plan.of(workload):
        count, cards = pods.shape(placement)
        spec = pods.pod(plan, placement)
        spec["containers"][0].pop("command", None)  # KubeRay starts Ray; the job's command is its entrypoint
        groups.append(
            {
                "groupName": pods.part_name(plan, placement),
                "replicas": count,
                "minReplicas": count,
                "maxReplicas": count,
                "rayStartParams": {"resources": json.dumps(json.dumps({pods.slug(placement.kind.name): cards}))},
                "template": {"spec": spec},
            }
        )
    head = {"containers": [{"name": "head", "image": workload.image}]}
    return {
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": {"spec": head}},
        "workerGroupSpecs": groups,
    }
