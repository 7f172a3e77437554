"""The studio's addresses: every view answers, only the folder's own things, and as text."""

import datetime
import json
import re
import time

import pytest

pytest.importorskip("starlette", reason="the extra `studio` is not installed")
pytest.importorskip("uvicorn", reason="the extra `studio` is not installed")

from starlette.testclient import TestClient

from tapeout.silicon import export_control
from tapeout.studio.pages import chips
from tapeout.studio.server import application
from tests.studio.folders import edited, run_folder

RUN = "sample/two-layers-on-tiny"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    return TestClient(application(tmp_path_factory.mktemp("empty")), base_url="http://127.0.0.1")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/", "two-layers-on-inference"),
        ("/chips", "H100-SXM5-80GB"),
        ("/compare", "Two runs"),
        (f"/compare?a={RUN}&b=sample/two-layers-on-inference", "time of kernels by bound"),
        ("/compare?a=tiny&b=inference", "core_count"),
        ("/decide", "Export status by date"),
        (f"/run/{RUN}", "roofline"),
        (f"/kernels/{RUN}", "advice"),
        (f"/kernel/{RUN}?n=0", "simulated again"),
        (f"/timeline/{RUN}", "api/trace"),
    ],
)
def test_every_view_answers(client, address, words):
    answer = client.get(address)
    assert answer.status_code == 200 and words in answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert re.findall(r"<script[^>]*>", answer.text) == [
        '<script src="/static/studio.js" defer>',
        '<script src="/static/timeline.js" defer>',
    ]


@pytest.mark.parametrize(
    "address",
    [
        "/run/nothing", "/run/../../etc/passwd", "/run/%2e%2e/%2e%2e/etc/passwd", "/raw//etc/passwd", "/timeline/",
        "/static/../server.py", "/static/server.py", "/compare?a=x&b=y", "/decide?chip=x", "/chips?base=x",
        f"/kernel/{RUN}?n=-1", f"/kernel/{RUN}?n=99", f"/api/span/{RUN}?event=x", "/api/chip?core_count=many",
    ],
)  # fmt: skip
def test_nothing_else_is_served(client, address):
    answer = client.get(address)
    assert answer.status_code in (404, 422) and "root:" not in answer.text


def test_another_hosts_name_is_refused(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_a_strangers_run_is_text(tmp_path):
    folder = run_folder(tmp_path, "<b>x")
    attack = "<script>alert(1)</script>"
    edited(folder, "run.json", lambda data: data.update(script=attack, chip_name=attack))
    edited(folder, "profile.json", lambda data: data["kernels"][0].update(name=attack))
    client = TestClient(application(tmp_path), base_url="http://127.0.0.1")
    for address in ("/", "/run/<b>x"):
        text = client.get(address).text
        assert "<script>alert" not in text and "<b>x" not in text and "&lt;script&gt;" in text


def test_a_broken_profile_is_a_sentence(tmp_path):
    edited(run_folder(tmp_path, "torn"), "profile.json", lambda data: data["kernels"][0].update(share="much"))
    answer = TestClient(application(tmp_path), base_url="http://127.0.0.1").get("/run/torn")
    assert answer.status_code == 422 and "profile.json.kernels[0].share is not a number" in answer.text


def test_a_slider_answers(client):
    start = time.process_time()
    found = client.get("/api/chip?base=inference&core_count=64&hbm.stack_count=6").json()
    assert time.process_time() - start < 0.5  # its measure is in docs/how-to/see-and-explore.md
    rows = {label: value for label, value, _ in found["rows"]}
    assert rows["memory bandwidth"] == "7,200 GB/s" and rows["die area"].endswith("mm²") and "3A090" in found["export"]
    fault = client.get("/api/chip?base=inference&core.scratchpad.size_bytes=100").json()["fault"]
    assert fault.startswith("scratchpad.size_bytes=100 is too small")


def test_the_timelines_spans(client):
    found = client.get(f"/api/trace/{RUN}").json()
    track = next(each for each in found["tracks"] if each["name"] == "matrix")
    sources = {client.get(f"/api/span/{RUN}?event={event}").json().get("source", "") for event in track["events"]}
    assert any(source.startswith("tapeout/pytorch/ops/matmul.py:") for source in sources)


def test_thresholds_are_those_of_the_rules():
    lines = dict(chips.thresholds(datetime.date(2026, 1, 1), 1e5, 0.1, 100.0))
    known = {rule.id: rule for rule in export_control.rules()}
    for name, points in lines.items():
        limits = {each.quantity: each.threshold for each in known[name].when if each.relation == "at_least"}
        assert points[0][0] == limits["total_processing_performance"]
        assert points[1][1] == limits.get("performance_density", 0.1)
    assert len(lines) >= 2


def test_every_script_is_small_and_whole(client):
    for name in ("studio.js", "timeline.js"):
        text = client.get(f"/static/{name}").text
        assert "innerHTML" not in text and text.count("{") == text.count("}")


def test_data_of_an_infinite_number_are_refused(tmp_path):
    folder = run_folder(tmp_path, "x")
    text = (folder / "profile.json").read_text()
    share = json.loads(text)["kernels"][0]["share"]
    (folder / "profile.json").write_text(text.replace(f'"share": {share}', '"share": NaN', 1))
    answer = TestClient(application(tmp_path), base_url="http://127.0.0.1").get("/run/x")
    assert answer.status_code == 422
