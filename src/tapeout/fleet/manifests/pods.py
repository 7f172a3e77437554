"""Parts that the manifests of all schedulers share: names Kubernetes accepts, resources, pods.

Takes placements, gives parts of documents. A pod has the cards of one instance, or of one node of a training run.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tapeout.fleet.description import FleetError, Kind, Train, Workload
from tapeout.fleet.placing import FleetPlan, KindUse, Placement

NAMESPACE = "default"


def slug(name: str) -> str:
    """A name as a DNS label: lower-case letters, digits and hyphens, at most 50 of them."""
    found = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:50].strip("-")
    if not found:
        raise FleetError(f"{name!r} holds no letter or digit, so Kubernetes has no name for it")
    return found


def check_names(names: Iterable[str]) -> None:
    """Raise FleetError if two names are the same to Kubernetes."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(slug(name), name)
        if other != name:
            raise FleetError(f"{other!r} and {name!r} are both {slug(name)!r} to Kubernetes; rename one")


def check(plan: FleetPlan) -> None:
    """Raise FleetError if a document could not be written."""
    check_names(kind.name for kind in plan.fleet.kinds)
    check_names([*(workload.name for workload in plan.fleet.workloads), "spare"])
    for workload in plan.fleet.workloads:
        if not workload.image:
            raise FleetError(f"workload {workload.name!r} has no image to run; add image=... to it or to [defaults]")
    for use in plan.kinds:
        resource(use)


def resource(use: KindUse) -> str:
    """The kind's name among the resources of a node."""
    stated = use.card.timer.chip.software.kubernetes_resource
    name = use.kind.resource or (stated.value if stated is not None else "")
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", name):
        raise FleetError(
            f'kinds.{use.kind.name}: {name!r} is no resource of Kubernetes; add resource="example.com/card"'
            if name
            else f'kinds.{use.kind.name}: no resource of Kubernetes is known; add resource="example.com/card"'
        )
    return name


def use_of(plan: FleetPlan, kind: Kind) -> KindUse:
    return next(use for use in plan.kinds if use.kind is kind)


def labels(kind: Kind) -> dict[str, str]:
    """Labels of the kind's nodes: as the fleet says, or one made of its name."""
    return dict(kind.labels) or {"tapeout.dev/kind": slug(kind.name)}


def shape(placement: Placement) -> tuple[int, int]:
    """Pods of a placement and the cards of each."""
    if isinstance(placement.workload, Train):
        return placement.cards // placement.kind.cards_per_node, placement.kind.cards_per_node
    return placement.count, placement.column.cards


def pod(plan: FleetPlan, placement: Placement, **more: Any) -> dict[str, Any]:
    """The specification of a pod; `more` is added to it."""
    cards = shape(placement)[1]
    container: dict[str, Any] = {"name": "work", "image": placement.workload.image}
    if placement.workload.command:
        container["command"] = list(placement.workload.command)
    container["env"] = [{"name": "CARDS", "value": str(cards)}]
    container["resources"] = {"limits": {resource(use_of(plan, placement.kind)): cards}}
    return {**more, "nodeSelector": labels(placement.kind), "containers": [container]}


def part_name(plan: FleetPlan, placement: Placement) -> str:
    """The workload's name, with the kind's where it runs on several."""
    own = slug(placement.workload.name)
    kinds = {each.kind.name for each in plan.of(placement.workload)}
    several = len(plan.of(placement.workload)) > 1
    if not several:
        return own
    return f"{own}-{slug(placement.kind.name)}" + (f"-{placement.column.cards}" if len(kinds) < several + 1 else "")


def metadata(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, **more}


def deployment(
    name: str, replicas: int, spec: Mapping[str, Any], labels: Mapping[str, str], annotations: Mapping[str, str]
) -> dict[str, Any]:
    """Pods that serve until they are stopped."""
    template: dict[str, Any] = {"metadata": {"labels": {"app": name}}, "spec": dict(spec)}
    if annotations:
        template["metadata"]["annotations"] = dict(annotations)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name, labels={"app": name, **labels}),
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def quotas(plan: FleetPlan, workload: Workload) -> dict[str, int]:
    """Cards that the workload was given of each kind, the cheapest an hour and card first."""
    found: dict[str, int] = {}
    for each in sorted(plan.of(workload), key=lambda each: each.column.usd_per_h / each.column.carries):
        found[each.kind.name] = found.get(each.kind.name, 0) + each.cards
    return found
