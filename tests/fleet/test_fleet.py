"""Fleets from their files: plans that hold, manifests of the schedulers' shapes, refusals that say what would do."""

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tapeout import fleet
from tapeout.cli import app
from tapeout.fleet import manifests
from tapeout.fleet.columns import cards_of, demand

EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet.toml"


@pytest.fixture(scope="module")
def plan():
    return fleet.plan(fleet.load(EXAMPLE))


def test_the_example_is_placed_within_all_its_limits(plan):
    assert plan.gap <= 0.01
    assert plan.bound_usd_per_h <= plan.usd_per_h == pytest.approx(sum(each.usd_per_h for each in plan.placements))
    for workload in plan.fleet.workloads:
        placed = plan.of(workload)
        assert sum(each.count * each.column.carries for each in placed) >= demand(workload) * (1 - 1e-6)
        for each in placed:
            assert not plan.fleet.allows(workload, each.kind)
            assert all(needs <= limit * (1 + 1e-6) for _, needs, limit in each.column.within)
    assert all(0 <= use.used <= use.kind.count for use in plan.kinds)
    assert all(each.site.power_kw is None or each.power_kw <= each.site.power_kw for each in plan.sites)


def test_a_card_costs_its_price_and_its_power():
    found = fleet.load(EXAMPLE)
    stated = next(card for kind, card in zip(found.kinds, cards_of(found), strict=True) if kind.name == "H100")
    assert stated.usd_per_h == pytest.approx(2.1 + stated.power_kw * 0.06)


NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
POD = {"containers": [{"name": str, "image": str}]}
WORKER = {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "rayStartParams": dict}
CLUSTER = {
    "headGroupSpec": {"rayStartParams": dict, "template": {"spec": POD}},
    "workerGroupSpecs": [WORKER | {"template": {"spec": POD}}],
}
FLAVOR = {"name": NAME, "resources": [{"name": str, "nominalQuota": int}]}
QUEUE = {
    "cohortName": NAME,
    "namespaceSelector": dict,
    "flavorFungibility": {"whenCanBorrow": re.compile("TryNextFlavor|MayStopSearch")},
    "resourceGroups": [{"coveredResources": [str], "flavors": [FLAVOR]}],
}
SCHEMAS = {
    "kueue.x-k8s.io/v1beta2 ResourceFlavor": {"nodeLabels": dict},
    "kueue.x-k8s.io/v1beta2 ClusterQueue": QUEUE,
    "kueue.x-k8s.io/v1beta2 LocalQueue": {"clusterQueue": NAME},
    "batch/v1 Job": {
        "suspend": bool,
        "parallelism": int,
        "completions": int,
        "completionMode": re.compile("Indexed"),
        "template": {"spec": {"restartPolicy": re.compile("Never"), **POD}},
    },
    "apps/v1 Deployment": {"replicas": int, "selector": {"matchLabels": dict}, "template": {"spec": POD}},
    "scheduling.volcano.sh/v1beta1 Queue": {"weight": int, "reclaimable": bool, "capability": dict, "deserved": dict},
    "batch.volcano.sh/v1alpha1 Job": {
        "schedulerName": str,
        "queue": NAME,
        "minAvailable": int,
        "policies": [{"event": re.compile("PodEvicted"), "action": re.compile("RestartJob")}],
        "tasks": [{"name": NAME, "replicas": int, "template": {"spec": POD}}],
    },
    "ray.io/v1 RayCluster": CLUSTER,
    "ray.io/v1 RayJob": {"entrypoint": str, "shutdownAfterJobFinishes": bool, "rayClusterSpec": CLUSTER},
}
"""Fields that the definitions of Kueue 0.14, Volcano 1.13 and KubeRay 1.5 require or know, with their types."""
OF_PODS = {"nodeSelector", "schedulerName", "restartPolicy", "env", "resources", "command", "metadata", "name"}


def check(schema, value, place):
    """Every field of the schema is there, and no field is that neither it nor a pod has."""
    if isinstance(schema, dict):
        assert schema.keys() <= value.keys(), place
        assert value.keys() <= schema.keys() | OF_PODS, place
        for name, inner in schema.items():
            check(inner, value[name], f"{place}.{name}")
    elif isinstance(schema, list):
        assert value, place
        for each in value:
            check(schema[0], each, f"{place}[]")
    elif isinstance(schema, re.Pattern):
        assert schema.fullmatch(value), place
    else:
        assert type(value) is schema, place


@pytest.mark.parametrize("scheduler", manifests.WRITERS)
def test_manifests_have_the_schedulers_fields(plan, scheduler):
    documents = list(yaml.safe_load_all(manifests.to_yaml(manifests.WRITERS[scheduler](plan))))
    for document in documents:
        assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert NAME.fullmatch(document["metadata"]["name"])
        schema = f"{document['apiVersion']} {document['kind']}"
        check(SCHEMAS[schema], document["spec"], schema)
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(set(names)) == len(names)


def test_kueue_holds_each_workload_to_its_cards_and_all_to_the_fleet(plan):
    documents = manifests.WRITERS["kueue"](plan)
    quotas: dict[str, int] = {}
    for document in documents:
        if document["kind"] == "ClusterQueue":
            for group in document["spec"]["resourceGroups"]:
                for flavor in group["flavors"]:
                    assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]
                    quotas[flavor["name"]] = quotas.get(flavor["name"], 0) + flavor["resources"][0]["nominalQuota"]
    assert quotas == {re.sub("[^a-z0-9]+", "-", kind.name.casefold()): kind.count for kind in plan.fleet.kinds}
    job = next(each for each in documents if each["kind"] == "Job" and each["metadata"]["name"] == "next-70b")
    (placement,) = (each for each in plan.placements if each.workload.name == "next-70b")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert job["spec"]["parallelism"] * container["resources"]["limits"]["nvidia.com/gpu"] == placement.cards
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "next-70b"}


KIND = '[[kinds]]\nname = "H100"\ncount = 16\nusd_per_h = 2\npower_kw = 1\n'
SERVE = """[[workloads]]
name = "chat"
type = "serve"
model = "llama-3.1-8b"
requests_per_s = {rate}
input_tokens = 1000
output_tokens = 200
ttft_ms = {ttft}
tpot_ms = {tpot}
"""


def planned(tmp_path, text):
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return fleet.plan(fleet.load(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            KIND + SERVE.format(rate=5, ttft=500, tpot=0.5),
            r"workload 'chat' cannot be placed: H100 needs [\d.]+ ms for a later token on 8 cards \(tpot_ms=0.5\); "
            r"tpot_ms=([\d.]+) would let H100 carry it",
        ),
        (
            KIND + SERVE.format(rate=2000, ttft=500, tpot=20),
            r"workload 'chat' cannot be placed beside the others: \d+ more H100 would do",
        ),
        (
            KIND + SERVE.format(rate=5, ttft=500, tpot=20) + 'needs = ["eu"]\n',
            "workload 'chat' cannot be placed: H100 lacks the tag 'eu'; add or allow another kind",
        ),
        (
            "[sites.here]\npower_kw = 0.5\n" + KIND + SERVE.format(rate=5, ttft=500, tpot=20),
            "workload 'chat' cannot be placed beside the others: 1 kW more at here would do",
        ),
        (KIND, r".*fleet.toml: no workloads: add at least one table \[\[workloads\]\]"),
        (KIND.replace("count", "cuont"), ".*kinds.H100: unknown field 'cuont'; did you mean 'count'[?]"),
        (KIND.replace("16", "1.5"), ".*kinds.H100: count=1.5 is not a whole number"),
        (
            KIND + "[[workloads]]\nname = 'x'\ntype = 'sleep'",
            ".*workloads.x: type='sleep'; choose from serve, rank, train",
        ),
        (
            KIND + SERVE.format(rate=5, ttft=500, tpot=20) + "kinds = ['H200']",
            ".*workloads.chat: kinds names 'H200'; the fleet has H100",
        ),
        (
            KIND.replace("H100", "H1000") + SERVE.format(rate=5, ttft=500, tpot=20),
            r"kinds.H1000: .*; name a known chip with chip=...",
        ),
        (
            KIND + SERVE.format(rate=5, ttft=500, tpot=20).replace("llama-3.1-8b", "llama-9"),
            "workloads.chat: unknown model 'llama-9'; known: .*",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence_that_says_what_would_do(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fleet.FleetError) as refused:
        planned(tmp_path, text)
    assert re.fullmatch(message, str(refused.value)), str(refused.value)


def test_what_is_said_to_do_does(tmp_path):
    text = KIND + SERVE.format(rate=2000, ttft=500, tpot=20)
    with pytest.raises(fleet.FleetError) as refused:
        planned(tmp_path, text)
    more = int(re.search(r"(\d+) more H100", str(refused.value))[1])
    assert planned(tmp_path, text.replace("count = 16", f"count = {16 + more}")).kinds[0].slack < more
    text = KIND + SERVE.format(rate=0.1, ttft=500, tpot=0.5)
    with pytest.raises(fleet.FleetError) as refused:
        planned(tmp_path, text)
    bound = re.search(r"; tpot_ms=([\d.]+)", str(refused.value))[1]
    assert planned(tmp_path, text.replace("tpot_ms = 0.5", f"tpot_ms = {bound}")).placements


def test_a_kind_without_a_name_in_kubernetes_is_refused(tmp_path):
    text = KIND.replace('"H100"', '"mine"\nchip = "training"') + SERVE.format(rate=5, ttft=500, tpot=20)
    with pytest.raises(fleet.FleetError, match="no image to run; add image"):
        manifests.WRITERS["ray"](planned(tmp_path, text))
    text += 'image = "a/b"\n'
    with pytest.raises(fleet.FleetError, match="no resource of Kubernetes is known; add resource="):
        manifests.WRITERS["ray"](planned(tmp_path, text))


def test_the_command_prints_and_writes(tmp_path):
    target = tmp_path / "queues.yaml"
    done = CliRunner().invoke(app, ["fleet", str(EXAMPLE), "--emit", "kueue", "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert target.read_text().startswith("---\napiVersion: kueue.x-k8s.io/v1beta2\n")
    shown = CliRunner().invoke(app, ["fleet", str(EXAMPLE), "--format", "csv"])
    assert "one more saves, USD/h" in shown.output
    assert shown.output.splitlines()[1].startswith("chat,80 requests/s,")
