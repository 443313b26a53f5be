"""The task API over HTTP: a real server on a real port, and clients that do as they should, and as they should not."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import uvicorn
from conftest import draw, painted
from fastapi.routing import APIRoute
from foreign_models import onnx_colors
from pydantic import TypeAdapter
from starlette.routing import Match
from test_prelabeling import colored

from engine.cli import main
from engine.dataset import read_samples
from engine.errors import InputError, OutputError, UsageError
from engine.manifest import read_manifest, write_manifest
from engine.models import Shelf, load_any
from engine.outfolder import OutFolder
from engine.samples import IMAGE_CLASSIFICATION, OBJECT_DETECTION, Drawing, Label, Sample, Shape
from engine.server.answers import task_answer
from engine.server.app import create_app, create_service_app
from engine.server.checks import Roots, check_paths
from engine.server.database import Database, ServiceRow, TaskRow, new_id
from engine.server.datasets import add_dataset, begin, change, forget_base, land
from engine.server.inferring import Answered, Service, _append, _Collector, _look
from engine.server.manual import manual_html
from engine.server.problems import MEANINGS, NO_SERVICE, Problem
from engine.server.queue import Queue
from engine.server.services import Services
from engine.server.worker import DONE, FAILED, STOPPED, task_folder, work
from engine.tasks import deploying
from engine.tasks.catalog import run_request
from engine.tasks.confirming import confirm
from engine.tasks.deploying import ServedModel, ServicePlan, read_service
from engine.tasks.request import parse_request
from engine.tasks.runner import CACHE, Status

LEARNING = [
    {"label": name, "value": value}
    for name, value in (("steps", 8), ("networks", 2), ("image_size", 16), ("precision", "float32"))
]
FAST = {"task_type": "auto-label", "config": {"algorithm_type": "fast", "parameters": LEARNING}}
#: A task that would take minutes.
SLOW = {
    "task_type": "auto-label",
    "config": {
        "algorithm_type": "fast",
        "parameters": [{**each, "value": 100_000} if each["label"] == "steps" else each for each in LEARNING],
    },
}
GROUPING = {"task_type": "auto-grouping", "config": {"n_clusters": 2, "image_brightness": True, "property": "light"}}


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address at which an app answers."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


#: The routes as the document of the service has them.
ROUTES = [route for route in create_app(Path("nowhere")).routes if isinstance(route, APIRoute)]


def has_its_form(answer: httpx.Response) -> None:
    """Every answer is what the OpenAPI document says, to the last field."""
    if answer.status_code >= 300:
        return
    asked = {"type": "http", "method": answer.request.method, "path": answer.request.url.path}
    (route,) = (route for route in ROUTES if route.matches(asked)[0] == Match.FULL)
    if route.response_model is not None:
        TypeAdapter(route.response_model).validate_json(answer.read(), strict=True)


class Client:
    """A client of one project, and the data set that it works with."""

    def __init__(self, address: str, token: str | None, place: Path, project: str = "p1") -> None:
        headers = {} if token is None else {"X-Auth-Token": token}
        hooks = {"response": [has_its_form]}
        self.http = httpx.Client(base_url=address, headers=headers, timeout=60, event_hooks=hooks)
        self.project = project
        self.place = place
        self.dataset_id = ""

    @property
    def base(self) -> str:
        return f"/v2/{self.project}/datasets/{self.dataset_id}"

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.http.get(path, params=params)

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return self.http.post(path, json=body)

    def register(self, name: str, data: Path) -> str:
        answer = self.post(f"/v2/{self.project}/datasets", {"dataset_name": name, "data_path": str(data)})
        assert answer.status_code == 201, answer.text
        self.dataset_id = answer.json()["dataset_id"]
        return self.dataset_id

    def start(self, body: Any) -> str:
        answer = self.post(f"{self.base}/tasks", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["task_id"])

    def task(self, task_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.get(f"{self.base}/tasks/{task_id}").json()
        return answer

    def ended(self, task_id: str, seconds: float = 90) -> dict[str, Any]:
        return self.until(task_id, {Status.FAILED, Status.SUCCEEDED, Status.STOPPED}, seconds)

    def until(self, task_id: str, statuses: set[Status], seconds: float = 90) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (found := self.task(task_id))["status"] not in statuses:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with served(create_app(place / "home", roots=[place], workers=2)) as found:
        yield found


@pytest.fixture(scope="module")
def token(place: Path, address: str) -> str:
    database = Database(place / "home")
    made = database.add_token("p1", "anna")
    database.close()
    return made


@pytest.fixture
def client(address: str, token: str, place: Path) -> Iterator[Client]:
    """A client with a data set of its own: 27 images, of which 18 are labeled."""
    found = Client(address, token, place)
    name = f"data-{uuid.uuid4().hex[:12]}"
    dataset = painted(place / name)
    write_manifest(place / name / "few.manifest", dataset.samples)
    found.register(name, place / name / "few.manifest")
    yield found
    found.http.close()


def problem(answer: httpx.Response, status: int, code: str, words: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["error_code"] == code and words in answer.json()["error_msg"], answer.text
    assert set(answer.json()) == {"error_code", "error_msg"}


def test_the_whole_story(client: Client, place: Path) -> None:
    """Group, label, look, confirm, export, deploy, ask: over HTTP alone."""
    told = client.get(client.base).json()
    assert (told["total_sample_count"], told["annotated_sample_count"]) == (27, 18)
    grouped = client.ended(client.start(GROUPING))
    assert grouped["status"] == 3 and grouped["type"] == 2 and grouped["result"]["n_clusters"] == 2
    asked = json.dumps({"metadata": {"props": {"light": None}}})
    assert client.get(f"{client.base}/data-annotations/samples", search_conditions=asked).json()["sample_count"] == 9

    labeled = client.ended(client.start(FAST))
    assert labeled["status"] == 3 and labeled["progress"] == 100.0 and labeled["message"] == "succeeded"
    assert labeled["result"]["annotated_sample_count"] == 9 and labeled["config"]["algorithm_type"] == "fast"
    page = client.get(f"{client.base}/tasks/{labeled['task_id']}/files/report.html")
    assert page.status_code == 200 and "Review first" in page.text
    found = client.get(f"{client.base}/auto-annotations/samples", order="asc", limit=100).json()
    scores = [sample["labels"][0]["score"] for sample in found["samples"]]
    assert found["sample_count"] == 9 and scores == sorted(scores)
    assert all("light" in sample["metadata"] for sample in found["samples"])  # what was found out before stays

    first, second = (sample["sample_id"] for sample in found["samples"][:2])
    body = {"labels": {first: ["ring"]}, "samples": [second], "by": "anna"}
    done = client.post(f"{client.base}/auto-annotations/samples", body).json()
    assert done["unconfirmed_count"] == 7 and done["confirmed_count"] + done["corrected_count"] == 2
    corrected = client.get(f"{client.base}/data-annotations/samples/{first}").json()
    assert corrected["labels"][0]["name"] == "ring" and corrected["labels"][0]["annotated_by"] == "human"
    assert "score" not in corrected["labels"][0] and corrected["sample_status"] == "MANUAL_ANNOTATION"
    assert client.post(f"{client.base}/auto-annotations/samples", {"all": True}).json()["unconfirmed_count"] == 0

    export = client.post(f"{client.base}/export-tasks", {"to": "tree", "export_params": {"sample_state": "ALL"}})
    exported = client.ended(export.json()["task_id"])
    assert exported["result"]["exported_sample_count"] == 27
    wrong = {"to": "csv", "export_params": {"export_dest": "NEW_DATASET"}}
    problem(client.post(f"{client.base}/export-tasks", wrong), 400, "LE.4000", "to: must be 'new'")
    assert client.get(f"{client.base}/tasks", task_type="export").json()["total_count"] == 1
    everything = {"parameters": [{"label": "all", "value": True}]}
    again = {"export_dest": "NEW_DATASET", "export_new_dataset_name": f"again-{client.dataset_id[:8].strip('-_')}"}
    client.ended(client.start({**GROUPING, "config": {**GROUPING["config"], **everything, "export_params": again}}))
    new = {"export_dest": "NEW_DATASET", "export_new_dataset_name": f"new-{client.dataset_id[:8].strip('-_')}"}
    client.ended(client.post(f"{client.base}/export-tasks", {"export_params": new}).json()["task_id"])
    names = [each["dataset_name"] for each in client.get("/v2/p1/datasets", limit=100).json()["datasets"]]
    assert {new["export_new_dataset_name"], again["export_new_dataset_name"]} <= set(names)
    task = {"task_type": "auto-deploy", "config": {"model_name": "shapes", "parameters": LEARNING}}
    deployed = client.ended(client.start(task))
    assert deployed["status"] == 3, deployed
    service_id = deployed["resource_id"]
    assert Shelf(place / "home").find("shapes").model_id == deployed["result"]["model_id"]
    models = client.get("/v2/p1/models").json()
    assert "shapes" in [model["model_name"] for model in models["models"]]

    image = Path(read_samples(place / "home" / "datasets" / client.dataset_id / "current.manifest")[0].source)
    answers = [
        client.http.post(f"/v1/infers/{service_id}", files={"images": image.read_bytes()}),
        client.http.post(f"/v1/infers/{service_id}", json={"image": base64.b64encode(image.read_bytes()).decode()}),
        client.http.post(f"/v1/infers/{service_id}", content=image.read_bytes(), headers={"content-type": "image/png"}),
    ]
    assert all(answer.status_code == 200 for answer in answers), [answer.text for answer in answers]
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert answers[0].json()["predicted_label"] == answers[0].json()["scores"][0][0]
    listed = client.get("/v1/p1/services").json()
    assert service_id in [service["service_id"] for service in listed["services"]]
    kept = list(read_manifest(place / "home" / "services" / service_id / "collected" / "collected.manifest"))
    assert len(kept) == 3 and kept[0].usage == "INFERENCE" and kept[0].labels[0].annotated_by == "modelarts/inference"
    assert client.http.delete(f"/v1/p1/services/{service_id}").status_code == 204
    problem(client.http.post(f"/v1/infers/{service_id}", content=b"x"), 404, "LE.4043")


def test_who_may_do_what(client: Client, address: str, place: Path) -> None:
    database = Database(place / "home")
    other = Client(address, database.add_token("p2"), place, "p2")
    database.close()
    problem(httpx.get(f"{address}/v2/p1/datasets"), 401, "LE.4010")
    problem(httpx.post(f"{address}/v1/infers/nobody", content=b"x"), 401, "LE.4010")
    problem(other.http.post("/v1/infers/nobody", content=b"x"), 404, "LE.4043")
    problem(httpx.get(f"{address}/v2/p1/datasets", headers={"X-Auth-Token": "guess"}), 401, "LE.4010")
    problem(other.get("/v2/p1/datasets"), 403, "LE.4030")
    problem(other.get(f"/v2/p2/datasets/{client.dataset_id}"), 404, "LE.4040")
    assert other.get("/v2/p2/datasets").json() == {"total_number": 0, "datasets": []}
    other.http.close()


def test_tasks_of_a_data_set_wait_for_each_other(client: Client) -> None:
    slow = client.start(SLOW)
    quick = client.start(GROUPING)
    problem(client.post(f"{client.base}/tasks", SLOW), 400, "LE.4005", slow)
    client.until(slow, {Status.RUNNING})
    assert client.task(quick)["status"] == -1 and client.task(quick)["message"] == "queuing"
    listed = client.get(f"{client.base}/tasks").json()
    assert [task["task_id"] for task in listed["tasks"]] == [slow] and listed["exist_running_deploy_task"] is False
    assert client.get(f"{client.base}/tasks", type=2).json()["total_count"] == 1
    assert client.get(f"{client.base}/tasks", type=2, task_name="nothing").json()["total_count"] == 0
    began = time.monotonic()
    answer = client.post(f"{client.base}/tasks/{slow}/stop")
    assert answer.status_code == 204 and answer.content == b""
    assert client.ended(slow)["status"] == 5 and time.monotonic() - began < 5
    problem(client.post(f"{client.base}/tasks/{slow}/stop"), 400, "LE.4006")
    assert client.ended(quick)["status"] == 3
    problem(client.post(f"{client.base}/tasks/{quick}/resume"), 400, "LE.4009")
    assert client.post(f"{client.base}/tasks/{slow}/resume").status_code == 204  # it goes on, and is stopped again
    assert client.until(slow, {Status.RUNNING})["error_code"] == ""
    client.post(f"{client.base}/tasks/{slow}/stop")
    assert client.ended(slow)["status"] == 5
    assert not list((client.place / "home" / "datasets" / client.dataset_id).glob("base-*"))


def test_a_task_that_waits_is_stopped_at_once(client: Client) -> None:
    first, second = client.start(SLOW), client.start(GROUPING)
    assert client.post(f"{client.base}/tasks/{second}/stop").status_code == 204
    assert client.task(second)["status"] == 5
    client.post(f"{client.base}/tasks/{first}/stop")
    client.ended(first)


def test_a_worker_that_dies_ends_its_task_alone(client: Client, place: Path) -> None:
    slow = client.start(SLOW)
    client.until(slow, {Status.RUNNING})
    pid = int((task_folder(place / "home", slow) / "lock").read_text())
    os.killpg(pid, signal.SIGKILL)
    dead = client.ended(slow)
    assert dead["status"] == 2 and dead["error_code"] == "WorkerDied" and "run out of memory" in dead["error_msg"]
    assert client.ended(client.start(GROUPING))["status"] == 3


def test_what_fails_says_why(client: Client) -> None:
    body = {**GROUPING, "config": {**GROUPING["config"], "parameters": [{"label": "device", "value": "cuda:99"}]}}
    failed = client.ended(client.start(body))
    assert failed["status"] == 2 and failed["error_msg"] and failed["result"] == {}


def test_samples_are_changed_and_found(client: Client) -> None:
    every = client.get(f"{client.base}/data-annotations/samples", limit=100).json()
    for strange in (
        '{"@labelengine:sample_state": "ACEPTED"}',
        '{"x": "\\ud800"}',
        '{"x": ' + "[" * 700 + "]" * 700 + "}",
    ):
        told = f'{{"samples": [{{"sample_id": "{every["samples"][0]["sample_id"]}", "metadata": {strange}}}]}}'
        problem(client.http.put(f"{client.base}/data-annotations/samples", content=told), 400, "LE.4000")
    assert every["sample_count"] == 27 and len({sample["sample_id"] for sample in every["samples"]}) == 27
    first, last = every["samples"][0]["sample_id"], every["samples"][26]["sample_id"]
    states = {"@labelengine:sample_state": "ACCEPTED"}
    body = {
        "samples": [
            {"sample_id": first, "metadata": {**states, "weather": "sun"}, "sample_usage": "EVAL"},
            {"sample_id": last, "labels": [{"name": "ring", "type": 0}]},
        ]
    }
    answer = client.http.put(f"{client.base}/data-annotations/samples", json=body)
    assert answer.status_code == 200 and answer.json()["success"] is True
    accepted = client.get(f"{client.base}/data-annotations/samples", sample_state="__ACCEPTED__").json()
    assert [sample["sample_id"] for sample in accepted["samples"]] == [first]
    assert accepted["samples"][0]["labels"][0]["name"] == "lying"  # labels that were not given stay
    assert accepted["samples"][0]["sample_usage"] == "EVAL" and accepted["samples"][0]["metadata"]["weather"] == "sun"
    assert client.get(f"{client.base}/data-annotations/samples", sample_state="NONE").json()["sample_count"] == 8
    body = {"samples": [{"sample_id": last, "labels": []}]}
    client.http.put(f"{client.base}/data-annotations/samples", json=body)
    assert client.get(f"{client.base}/data-annotations/samples", sample_state="NONE").json()["sample_count"] == 9
    problem(client.http.put(f"{client.base}/data-annotations/samples", json={"samples": [{}]}), 404, "LE.4042")
    problem(client.get(f"{client.base}/data-annotations/samples/nobody"), 404, "LE.4042")
    two = client.get(f"{client.base}/data-annotations/samples", limit=2, offset=26).json()
    assert two["sample_count"] == 27 and [sample["sample_id"] for sample in two["samples"]] == [last]


def test_filters_of_automatic_labels(client: Client, place: Path) -> None:
    """Scores between bounds, by label and type, conditions joined by AND."""

    def guessed(dataset: Any) -> list[Any]:
        return [
            sample
            if number < 18
            else replace(
                sample,
                labels=(
                    Label(
                        type=IMAGE_CLASSIFICATION,
                        name="ring" if number % 2 else "lying",
                        annotated_by="modelarts/active-learning",
                        confidence=(number - 17) / 10,
                    ),
                ),
            )
            for number, sample in enumerate(dataset)
        ]

    change(place / "home", client.dataset_id, guessed)

    def scores(**params: Any) -> list[float]:
        found = client.get(f"{client.base}/auto-annotations/samples", limit=100, **params).json()
        return [sample["labels"][0]["score"] for sample in found["samples"]]

    assert scores() == [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert scores(order="asc", low_score=0.25, high_score=0.6) == [0.3, 0.4, 0.5, 0.6]
    assert scores(label_name="ring") == [0.8, 0.6, 0.4, 0.2] and scores(label_name="none") == []
    assert len(scores(label_type=0)) == 9 and scores(label_type=1) == []
    both = json.dumps([{"score": ">0.3"}, {"label_list": {"labels": [{"name": "lying"}]}}])
    assert scores(search_conditions=both) == [0.9, 0.7, 0.5]
    box = Shape("lamp", "bndbox", ((1, 1), (6, 9)), confidence=0.55)
    boxes = Label(OBJECT_DETECTION, annotated_by="modelarts/auto", drawing=Drawing((box,), (32, 24, 3)))
    first = lambda now: [replace(now[0], labels=(*now[0].labels, boxes)), *now[1:]]  # noqa: E731
    change(place / "home", client.dataset_id, first)  # people gave it a label of the whole image
    found = client.get(f"{client.base}/auto-annotations/samples", label_type=1).json()
    assert [each["labels"][1]["score"] for each in found["samples"]] == [0.55] and len(scores(label_type=0)) == 9
    assert client.get(client.base).json()["unconfirmed_sample_count"] == 10
    problem(client.get(f"{client.base}/auto-annotations/samples", low_score=2), 400, "LE.4000", "low_score")
    problem(client.get(f"{client.base}/auto-annotations/samples", limit=101), 400, "LE.4000", "limit")
    problem(client.get(f"{client.base}/auto-annotations/samples", search_conditions="{"), 400, "LE.4000", "JSON")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"{", "LE.4000", "not JSON"),
        (b"[]", "LE.4000", "object"),
        (b'{"task_type": "auto-fly"}', "LE.4000", "task_type"),
        (b'{"task_type": "auto-label", "colour": 1}', "LE.4000", "colour: unknown field"),
        (b'{"task_type": "auto-grouping", "config": {"n_clusters": 1e30}}', "LE.4004", "n_clusters"),
        (b'{"task_type": "auto-grouping", "config": {"n_clusters": 500}}', "LE.4004", "n_clusters"),
        (b'{"task_type": "auto-label", "config": {"manifest_path": "file://["}}', "LE.4000", "no URI"),
        (b'{"task_type": "auto-deploy", "model_id": "nobody"}', "LE.4000", "nobody"),
        (b'{"task_type": "auto-deploy", "config": {"model_name": "signs/v2"}}', "LE.4000", "name: must be letters"),
        (b'{"task_type": "auto-deploy", "config": {"output_dir": "xx://../../../tmp/evil"}}', "LE.4000", "output_dir"),
        (b'{"task_type":"auto-deploy","config":{"infer_result_output_dir":"../../.."}}', "LE.4008", "must lie in a"),
        (b'{"task_type": "auto-grouping", "config": {"n_clusters": 150}}', "LE.4004", "got 150 for 9"),
        (b'{"task_type": "pre-label", "model_id": "../../etc"}', "LE.4000", ""),
        (b'{"task_type": "auto-label", "config": {"manifest_path": "/etc/passwd"}}', "LE.4008", "must lie in a folder"),
        (b'{"task_type": "auto-label", "config": {"train_data_path": "../../.."}}', "LE.4008", "must lie in a folder"),
        (b'{"task_type": "auto-label", "config": {"annotation_output": "/tmp"}}', "LE.4000", "below OUT"),
        (b'{"task_type": "auto-label", "config": {"key_sample_output": "../x"}}', "LE.4000", "below OUT"),
        (
            b'{"task_type":"auto-grouping","config":{"parameters":[{"label":"encoder","value":"resnet18"},'
            b'{"label":"weights","value":"/etc/passwd"}]}}',
            "LE.4008",
            "must lie in a folder",
        ),
        (
            b'{"task_type":"auto-grouping","config":{"export_params":{"export_new_dataset_work_path":"/tmp"}}}',
            "LE.4000",
            "below OUT",
        ),
        (b'{"task_type":"auto-deploy","config":{"output_dir":"/etc/labelengine"}}', "LE.4008", "must lie in a folder"),
    ],
)
def test_requests_that_cannot_be_meant(client: Client, body: bytes, code: str, words: str) -> None:
    answer = client.http.post(f"{client.base}/tasks", content=body)
    problem(answer, 400, code, words)
    assert client.get(f"{client.base}/tasks", type=2).json()["total_count"] == 0


def test_fields_of_other_tasks_lead_nowhere(client: Client, tmp_path: Path) -> None:
    """They are accepted, and said once."""
    idle = {"annotation_output": "/tmp", "key_sample_output": "../x", "manifest_path": "/etc/passwd"}
    done = client.ended(client.start({**GROUPING, "config": {**GROUPING["config"], **idle}}))
    assert done["status"] == 3
    assert all(sum(f"config.{name}: belongs to" in line for line in done["notices"]) == 1 for name in idle)
    deploy = {"task_type": "auto-deploy", "config": {"annotation_output": "/tmp", "inf_output": "/tmp"}}
    check_paths(parse_request(deploy), Roots([tmp_path]), tmp_path)


def test_rules_of_auto_labeling(client: Client, place: Path) -> None:
    dataset = painted(place / "rules")
    write_manifest(place / "rules" / "none.manifest", [replace(sample, labels=()) for sample in dataset])
    client.register("rules-none", place / "rules" / "none.manifest")
    problem(client.post(f"{client.base}/tasks", FAST), 400, "LE.4001", "at least 2 labels")
    problem(client.post(f"{client.base}/tasks", {"task_type": "auto-deploy"}), 400, "LE.4001", "at least 2 labels")
    write_manifest(place / "rules" / "few.manifest", dataset.samples[:6] + dataset.samples[18:])
    client.register("rules-few", place / "rules" / "few.manifest")
    problem(client.post(f"{client.base}/tasks", FAST), 400, "LE.4002", "on at least 5")
    write_manifest(place / "rules" / "all.manifest", dataset.samples[:18])
    client.register("rules-all", place / "rules" / "all.manifest")
    problem(client.post(f"{client.base}/tasks", FAST), 400, "LE.4003", "nothing to label")
    problem(client.post(f"{client.base}/tasks", GROUPING), 400, "LE.4003", "unlabeled")


def test_data_sets(client: Client, place: Path) -> None:
    base = "/v2/p1/datasets"
    problem(client.post(base, {"dataset_name": "etc", "data_path": "/etc"}), 400, "LE.4008")
    problem(client.post(base, {"dataset_name": "up", "data_path": f"{place}/../.."}), 400, "LE.4008")
    problem(client.post(base, {"dataset_name": "zero", "data_path": f"{place}/a\0b"}), 400, "LE.4000")
    problem(client.post(base, {"dataset_name": "no", "data_path": f"{place}/nothing"}), 400, "LE.4000", "no such file")
    problem(client.post(base, {"dataset_name": "a/b", "data_path": str(place)}), 400, "LE.4000", "dataset_name")
    problem(client.post(base, {"data_path": str(place)}), 400, "LE.4000", "dataset_name")
    problem(client.post(base, {"dataset_name": "x", "data_path": "y", "colour": 1}), 400, "LE.4000", "colour")
    escape = {"dataset_name": "m", "data_path": str(place), "map": ["s3://b/=/etc/"]}
    problem(client.post(base, escape), 400, "LE.4008")
    draw(place.parent / "elsewhere" / "a.png")
    (place / "links").mkdir()
    (place / "links" / "a.png").symlink_to(place.parent / "elsewhere" / "a.png")
    problem(client.post(base, {"dataset_name": "links", "data_path": f"{place}/links"}), 400, "LE.4000", "none of 1")
    draw(place / "links" / "b.png")
    told = client.post(base, {"dataset_name": "links", "data_path": f"{place}/links"}).json()
    assert told["failure_count"] == 1 and told["failures"][0]["source"] == "a.png"
    name = client.get(client.base).json()["dataset_name"]
    problem(client.post(base, {"dataset_name": name, "data_path": str(place)}), 400, "LE.4007")
    (place / "leak").symlink_to("/etc")
    problem(client.post(base, {"dataset_name": "leak", "data_path": f"{place}/leak"}), 400, "LE.4008")
    for strange in ("'; DROP TABLE datasets; --", "$(touch x)", "..", "%2e%2e%2f", "\u202e"):
        assert client.get(f"{base}/{strange}").status_code in (404, 405, 307, 200)
    slow = client.start(SLOW)
    client.until(slow, {Status.RUNNING})
    assert client.http.delete(client.base).status_code == 204
    problem(client.get(client.base), 404, "LE.4040")
    problem(client.get(f"{client.base}/tasks/{slow}"), 404, "LE.4040")
    database = Database(place / "home")
    deadline = time.monotonic() + 10
    while (row := database.task(slow)) is not None and row.status != Status.STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    database.close()
    client.register(name, place)  # the name is free again


def test_places_that_are_none(client: Client, address: str) -> None:
    problem(client.get("/v2/p1"), 404, "LE.4044")
    problem(client.get(f"{client.base}/tasks/nobody"), 404, "LE.4041")
    problem(client.post(f"{client.base}/tasks/nobody/stop"), 404, "LE.4041")
    problem(client.get("/v2/p%2F1/datasets"), 404, "LE.4044")
    assert client.http.put("/v2/p1/datasets", json={}).status_code == 405
    done = client.ended(client.start(GROUPING))["task_id"]
    for path in ("..%2Ferror.json", "..%2F..%2F..%2Flabelengine.db", "%2Fetc%2Fpasswd", "nothing", "a%00b"):
        problem(client.http.get(f"{client.base}/tasks/{done}/files/{path}"), 404, "LE.4044")


def test_bodies_that_are_too_large(address: str, token: str) -> None:
    headers = {"X-Auth-Token": token, "content-type": "application/json"}
    with httpx.Client(base_url=address, headers=headers) as http:
        answer = http.post("/v2/p1/datasets", content=b" " * (33 * 2**20))
        problem(answer, 413, "LE.4130")
        answer = http.post("/v2/p1/datasets", content=(b"x" for _ in range(3)))
        problem(answer, 413, "LE.4130", "Content-Length")


def test_names_of_any_kind(client: Client) -> None:
    """Labels hold what people write; what names files stays a name."""
    sample_id = client.get(f"{client.base}/data-annotations/samples").json()["samples"][0]["sample_id"]
    for name in ("a/b", "../up", "tab\there", "line\nbreak", "\u202eright to left", "é" * 200, "'; --"):
        body = {"samples": [{"sample_id": sample_id, "labels": [{"name": name, "type": 0}]}]}
        assert client.http.put(f"{client.base}/data-annotations/samples", json=body).status_code == 200
        found = client.get(f"{client.base}/data-annotations/samples/{sample_id}").json()
        assert found["labels"][0]["name"] == name
    for name in ("new\nline", "a/b", "", " ", "x" * 101, "\x00"):
        body = {"dataset_name": name, "data_path": "x"}
        problem(client.post("/v2/p1/datasets", body), 400, "LE.4000", "dataset_name")


def test_a_clock_that_goes_backwards_gives_no_negative_time(tmp_path: Path) -> None:
    now = time.time()
    row = TaskRow(1, "t", "p", "d", "auto-label", "n", {}, Status.SUCCEEDED, 1, now, now, now - 3600, "", "")
    assert task_answer(tmp_path, row)["elapsed_time"] == 0.0
    running = replace(row, status=Status.RUNNING, started=now + 3600, ended=None)
    assert task_answer(tmp_path, running)["elapsed_time"] == 0.0


# ---- What a server leaves behind. ----


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def queued(home: Path, tmp_path: Path, body: dict[str, Any], name: str = "few") -> tuple[Database, str]:
    """A database with one data set and one task in the queue."""
    dataset = painted(tmp_path / name)
    write_manifest(tmp_path / name / "few.manifest", dataset.samples)
    database = Database(home)
    dataset_id = add_dataset(database, "p1", name, tmp_path / name / "few.manifest")
    return database, database.add_task("p1", dataset_id, body["task_type"], name, body)


def wait_for(database: Database, task_id: str, *statuses: Status, seconds: float = 60) -> Status:
    deadline = time.monotonic() + seconds
    while (row := database.task(task_id)) is not None and row.status not in statuses:
        assert time.monotonic() < deadline, row
        time.sleep(0.02)
    assert row is not None
    return row.status


def killed(queue: Queue) -> None:
    """As if the process of the server had been killed: nobody asks the workers to stop."""
    queue._closed.set()
    queue._thread.join()
    queue._home_lock.close()


def test_a_worker_outlives_its_server_and_is_taken_over(home: Path, tmp_path: Path) -> None:
    database, task_id = queued(home, tmp_path, FAST)
    first = Queue(database, Roots([tmp_path]))
    first.__enter__()
    wait_for(database, task_id, Status.INITIALIZING, Status.RUNNING)
    killed(first)
    with Queue(database, Roots([tmp_path])):
        assert wait_for(database, task_id, Status.SUCCEEDED, Status.FAILED) == Status.SUCCEEDED
    row = database.task(task_id)
    assert row is not None and row.attempts == 1  # it was not begun again
    first._processes[task_id].wait()


def test_a_task_whose_worker_died_with_the_server_goes_on(home: Path, tmp_path: Path) -> None:
    database, task_id = queued(home, tmp_path, FAST)
    first = Queue(database, Roots([tmp_path]))
    first.__enter__()
    wait_for(database, task_id, Status.RUNNING)
    killed(first)
    os.killpg(first._processes[task_id].pid, signal.SIGKILL)
    first._processes[task_id].wait()
    with Queue(database, Roots([tmp_path])):
        assert wait_for(database, task_id, Status.SUCCEEDED, Status.FAILED) == Status.SUCCEEDED
    row = database.task(task_id)
    assert row is not None and row.attempts == 2


def test_closing_keeps_what_can_go_on(home: Path, tmp_path: Path) -> None:
    database, task_id = queued(home, tmp_path, SLOW)
    with Queue(database, Roots([tmp_path])):
        wait_for(database, task_id, Status.RUNNING)
    row = database.task(task_id)
    assert row is not None and row.status == Status.QUEUING and row.ended is None
    assert (task_folder(home, task_id) / "out" / "task.json").is_file()


def test_a_task_is_not_begun_for_ever(home: Path, tmp_path: Path) -> None:
    database, task_id = queued(home, tmp_path, SLOW)
    database.move(task_id, [Status.QUEUING], Status.RUNNING, attempts=10)
    with Queue(database, Roots([tmp_path])):
        assert wait_for(database, task_id, Status.FAILED, Status.SUCCEEDED) == Status.FAILED


def test_a_task_that_is_resumed_counts_anew(home: Path, tmp_path: Path) -> None:
    database, task_id = queued(home, tmp_path, GROUPING)
    database.move(task_id, [Status.QUEUING], Status.FAILED, attempts=10, started=1.0, ended=2.0, error_code="x")
    assert Queue(database, Roots([tmp_path])).resume(task_id)
    row = database.task(task_id)
    assert row is not None and (row.status, row.attempts, row.started, row.ended) == (Status.QUEUING, 0, None, None)
    assert task_answer(home, row)["elapsed_time"] == 0.0 and row.error_code == ""


def test_a_task_goes_on_whose_worker_was_killed_at_once(home: Path, tmp_path: Path) -> None:
    _, task_id = queued(home, tmp_path, GROUPING)
    OutFolder(task_folder(home, task_id) / "out").__exit__(None, None, None)  # its folder, and nothing in it
    assert work(home, task_id, Roots([tmp_path]), threading.Event()) == DONE


def test_a_task_goes_on_with_what_people_have_done_since(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped, then a person labeled an image; it ended, its result could not land, a person did so again."""
    database, task_id = queued(home, tmp_path, GROUPING)
    (dataset,) = database.datasets("p1")
    stop = threading.Event()

    def labeled(row: int) -> None:
        forget_base(home, dataset.dataset_id, task_id)
        mine = Label(type=IMAGE_CLASSIFICATION, name="mine")
        change(
            home,
            dataset.dataset_id,
            lambda samples: [replace(each, labels=(mine,)) if at == row else each for at, each in enumerate(samples)],
        )

    def refuses(*_: object) -> None:
        raise InputError("no")

    stop.set()
    assert work(home, task_id, Roots([tmp_path]), stop) == STOPPED
    labeled(25)
    with monkeypatch.context() as patched:
        patched.setattr("engine.server.worker.land", refuses)
        assert work(home, task_id, Roots([tmp_path]), threading.Event()) == FAILED
    labeled(26)
    assert work(home, task_id, Roots([tmp_path]), threading.Event()) == DONE
    landed = read_samples(home / "datasets" / dataset.dataset_id / "current.manifest")
    assert [each.labels[0].name for each in landed.samples[25:]] == ["mine", "mine"]
    assert "light" in landed[24].property and "light" not in landed[26].property, "grouped as it is by now"


def test_landing_twice_is_landing_once_and_people_go_first(home: Path, tmp_path: Path) -> None:
    dataset = colored(tmp_path / "data")
    write_manifest(tmp_path / "data" / "colors.manifest", dataset.samples)
    database = Database(home)
    dataset_id = add_dataset(database, "p1", "colors", tmp_path / "data" / "colors.manifest")
    current = home / "datasets" / dataset_id / "current.manifest"
    out = tmp_path / "out"
    begin(home, dataset_id, "task")
    assert main(["prelabel", str(current), "--model", str(onnx_colors(tmp_path / "rgb")), "--out", str(out)]) == 0

    def said(samples: Any) -> list[Any]:
        mine = Label(type=IMAGE_CLASSIFICATION, name="mine")
        return [replace(each, labels=(mine,)) if number == 20 else each for number, each in enumerate(samples)]

    change(home, dataset_id, said)  # a person has labeled an image while the task ran
    assert land(home, dataset_id, "task", out) == 17
    once = current.read_bytes()
    assert land(home, dataset_id, "task", out) == 0 and current.read_bytes() == once
    landed = read_samples(current)
    assert landed[20].labels[0].name == "mine" and not landed[21].labels[0].by_human
    with pytest.raises(InputError, match="has one of this name"):
        add_dataset(database, "p1", "colors", tmp_path / "data" / "colors.manifest")
    assert len(list((home / "datasets").iterdir())) == 1


def test_what_people_do_while_a_task_runs_stays(home: Path, tmp_path: Path) -> None:
    """A label taken away, an attribute set, a twin of the same file: a result changes what it found out, no more."""
    mine, guess = (
        Label(type=IMAGE_CLASSIFICATION, name="mine"),
        Label(type=IMAGE_CLASSIFICATION, name="guess", annotated_by="modelarts/active-learning", confidence=0.5),
    )
    draw(tmp_path / "data" / "a.png")
    draw(tmp_path / "data" / "b.png")
    samples = (
        Sample("a.png", (guess,)),
        Sample("b.png", property={"light": 1}),
        Sample("b.png", (mine,), property={"light": 1}),
    )
    write_manifest(tmp_path / "data" / "few.manifest", samples)
    database = Database(home)
    dataset_id = add_dataset(database, "p1", "few", tmp_path / "data" / "few.manifest")
    begin(home, dataset_id, "task")
    rejected = (replace(samples[0], labels=()), replace(samples[1], property={"light": 1, "color": "red"}))
    change(
        home,
        dataset_id,
        lambda now: [
            replace(a, labels=b.labels, property=b.property) for a, b in zip(now, (*rejected, samples[2]), strict=True)
        ],
    )
    found = (samples[0], replace(samples[1], labels=(guess,), property={"light": 2}), replace(samples[2], property={}))
    (tmp_path / "out").mkdir()
    write_manifest(
        tmp_path / "out" / "result.manifest", [replace(each, source=f"../data/{each.source}") for each in found]
    )
    assert land(home, dataset_id, "task", tmp_path / "out") == 1
    first, second, third = read_samples(home / "datasets" / dataset_id / "current.manifest")
    assert first.labels == () and second.labels[0].name == "guess" and third.labels == (mine,)
    assert dict(second.property) == {"light": 2, "color": "red"} and dict(third.property) == {}


def test_what_another_manifest_does_not_say_is_not_taken_away(home: Path, tmp_path: Path) -> None:
    """A task on a manifest that a request names lands where the data set says the same; what people said stays."""
    for name in ("a.png", "b.png"):
        draw(tmp_path / "data" / name)
    dog = Label(IMAGE_CLASSIFICATION, name="dog", annotated_by="human/anna")
    known = [Sample("a.png", (dog,), property={"weather": "sun"}), Sample("b.png", property={"weather": "rain"})]
    write_manifest(tmp_path / "data" / "few.manifest", known)
    write_manifest(tmp_path / "data" / "other.manifest", [Sample("a.png"), Sample("b.png")])
    database = Database(home)
    dataset_id = add_dataset(database, "p1", "few", tmp_path / "data" / "few.manifest")
    begin(home, dataset_id, "task")
    guess = Label(IMAGE_CLASSIFICATION, name="cat", annotated_by="modelarts/auto", confidence=0.9)
    marks = {"@modelarts:hard_reasons": [1]}
    (tmp_path / "out").mkdir()
    result = [Sample(f"../data/{name}", (guess,), property=marks, hard=True) for name in ("a.png", "b.png")]
    write_manifest(tmp_path / "out" / "result.manifest", result)
    other = read_samples(tmp_path / "data" / "other.manifest")
    assert land(home, dataset_id, "task", tmp_path / "out", other) == 1
    first, second = read_samples(home / "datasets" / dataset_id / "current.manifest")
    assert first.labels == (dog,) and dict(first.property) == {"weather": "sun"} and first.hard is None
    assert second.labels == (guess,) and dict(second.property) == {"weather": "rain", **marks} and second.hard


def test_results_land_where_a_map_says_that_files_lie(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set and the manifest that a request names are both of URIs; and the map has an absolute folder in it."""
    draw(tmp_path / "photos" / "a.png")
    for name in ("few", "other"):
        write_manifest(tmp_path / "data" / f"{name}.manifest", [Sample("s3://b/a.png")])
    monkeypatch.chdir(tmp_path)
    database = Database(home)
    dataset_id = add_dataset(database, "p1", "few", tmp_path / "data" / "few.manifest", map=["s3://b/=photos/"])
    row = database.dataset(dataset_id)
    assert row is not None and row.map == (f"s3://b/={tmp_path / 'photos'}",)
    monkeypatch.chdir(tmp_path / "data")
    begin(home, dataset_id, "task")
    guess = Label(IMAGE_CLASSIFICATION, name="cat", annotated_by="modelarts/auto", confidence=0.9)
    (tmp_path / "out").mkdir()
    write_manifest(tmp_path / "out" / "result.manifest", [Sample("s3://b/a.png", (guess,))])
    other = read_samples(tmp_path / "data" / "other.manifest", map=row.map)
    assert land(home, dataset_id, "task", tmp_path / "out", other, row.map) == 1
    (landed,) = read_samples(home / "datasets" / dataset_id / "current.manifest")
    assert landed.source == "s3://b/a.png" and landed.labels == (guess,)


def test_a_model_that_fails_on_an_image_is_told_and_its_process_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        image_size = 16
        labels = ("a",)

        def probabilities(self, images: Any) -> Any:
            raise RuntimeError("out of memory\nand a long story")

    monkeypatch.setattr("engine.server.inferring._loaded", [Broken()])
    done, png = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
    assert done
    found = _look(png.tobytes())
    assert isinstance(found, InputError)
    assert str(found) == "the model must answer on this image, it failed: out of memory"


def test_every_label_of_several_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits are 10 x (color - 1/2): red 0.992 and green 0.620 are given, blue is not; the less sure one is hard."""
    given = {"width": 16, "height": 16, "mean": [0.5, 0.5, 0.5]}
    folder = onnx_colors(tmp_path / "rgb", input=given, activation="sigmoid", multi_label=True)
    monkeypatch.setattr("engine.server.inferring._loaded", [load_any(folder)])
    done, png = cv2.imencode(".png", np.full((8, 8, 3), (60, 140, 250), np.uint8))
    found = _look(png.tobytes())
    assert done and isinstance(found, Answered) and found.confidence == pytest.approx(0.6203, abs=1e-3)
    model = ServedModel(folder, "id", "rgb", "1", 100, 1, {})
    plan = ServicePlan((model,), True, None, None, (0.0, 1.0), 0.1)
    _Collector(plan, tmp_path / "kept", None).keep(png.tobytes(), found, model)
    (sample,) = read_manifest(tmp_path / "kept" / "collected.manifest")
    assert [(label.name, label.hard) for label in sample.labels] == [("red", False), ("green", True)]
    assert [label.confidence for label in sample.labels] == pytest.approx([0.9918, 0.6203], abs=1e-3)
    assert sample.hard and sample.hard_coefficient == sample.labels[1].hard_coefficient


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills: what was collected before can be read, and so can what comes later."""
    path = tmp_path / "collected.manifest"
    _append(path, b"first\n")

    class Full(io.FileIO):
        def write(self, line: Any) -> int:
            return super().write(line[:3])

    monkeypatch.setattr(Path, "open", lambda self, mode, buffering: Full(self, mode))
    with pytest.raises(OSError, match="No space"):
        _append(path, b"second\n")
    monkeypatch.undo()
    _append(path, b"third\n")
    assert path.read_bytes() == b"first\nthird\n"


def test_confirming_one_drawing_changes_no_other(home: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / "data" / name)
    write_manifest(tmp_path / "data" / "few.manifest", [Sample("a.png"), Sample("b.png")])
    database = Database(home)
    dataset_id = add_dataset(database, "p1", "few", tmp_path / "data" / "few.manifest")
    manifest = home / "datasets" / dataset_id / "current.manifest"
    drawing = Drawing((Shape("lamp", "bndbox", ((1, 1), (6, 9)), confidence=0.7),), (32, 24, 3))
    label = Label(type=OBJECT_DETECTION, drawing=drawing, annotated_by="modelarts/pre-label")

    def sure() -> list[float | None]:
        return [sample.boxes[0].confidence for sample in read_samples(manifest)]

    change(home, dataset_id, lambda now: [replace(each, labels=(label,)) for each in now])
    confirm(manifest, samples=["a.png"])
    assert sure() == [None, 0.7]
    change(home, dataset_id, lambda now: [replace(each, labels=(label,)) for each in now])  # labeled anew
    assert sure() == [0.7, 0.7]


def test_what_lies_outside_the_roots_is_left_out(home: Path, tmp_path: Path) -> None:
    draw(tmp_path / "data" / "a.png")
    draw(tmp_path / "secret" / "b.png")
    (tmp_path / "secret" / "b.xml").write_text("<annotation/>")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret" / "b.png")
    drawn = Label(type="modelarts/object_detection", annotation_loc="../secret/b.xml", annotation_format="PASCAL VOC")
    sources = ("a.png", "../secret/b.png", str(tmp_path / "secret" / "b.png"), "link.png", "s3://x/../../secret/b.png")
    samples = [Sample(source, (drawn,) if source == "a.png" else ()) for source in sources]
    write_manifest(tmp_path / "data" / "few.manifest", samples)
    roots = Roots([tmp_path / "data"])
    found = roots.only(read_samples(tmp_path / "data" / "few.manifest", map=[f"s3://x/={tmp_path}/data/y/"]))
    assert [sample.source for sample in found] == ["a.png"] and found[0].labels == ()
    assert len(found.failures) >= 5


def test_no_type_of_a_sample_leads_out_of_the_roots(tmp_path: Path) -> None:
    """What is text today may be an image tomorrow; content is no file."""
    draw(tmp_path / "secret" / "b.png")
    sources = ("../secret/b.png", str(tmp_path / "secret" / "b.png"), "a.txt", "content://../secret/b.png")
    samples = [Sample(source, sample_type=1) for source in sources]
    (tmp_path / "data").mkdir()
    write_manifest(tmp_path / "data" / "few.manifest", samples)
    found = Roots([tmp_path / "data"]).only(read_samples(tmp_path / "data" / "few.manifest"))
    assert [sample.source for sample in found] == ["a.txt", "content://../secret/b.png"]
    assert [failure.source for failure in found.failures] == list(sources[:2])


def test_samples_are_registered_where_the_system_finds_them(home: Path, tmp_path: Path) -> None:
    """`..` below a link leads on from where the link leads; a file that is a link keeps its name."""
    draw(tmp_path / "far" / "img" / "1.png")
    (tmp_path / "far" / "img" / "2.png").symlink_to("1.png")
    (tmp_path / "far" / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "b")
    (tmp_path / "far" / "b" / "again").symlink_to(tmp_path / "far" / "img")
    sources = ["../img/1.png", "../img/2.png", "again/../img/1.png"]
    write_manifest(tmp_path / "link" / "few.manifest", [Sample(source) for source in sources])
    dataset_id = add_dataset(Database(home), "p1", "few", tmp_path / "link" / "few.manifest")
    found = [sample.source for sample in read_samples(home / "datasets" / dataset_id / "current.manifest")]
    assert found == [str(tmp_path / "far" / "img" / name) for name in ("1.png", "2.png", "1.png")]


def test_no_id_is_a_flag_to_the_command_line() -> None:
    made = {new_id() for _ in range(1000)}
    assert len(made) == 1000 and all(re.fullmatch(r"[A-Za-z0-9]{20}", each) for each in made)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path / "home")]
    draw(tmp_path / "data" / "a.png")
    assert main(["dataset", "add", "pets", str(tmp_path / "data"), *home]) == 0
    dataset_id = capsys.readouterr().out.strip()
    assert main(["dataset", "list", *home]) == 0
    assert capsys.readouterr().out.split()[:3] == [dataset_id, "default", "pets"]
    assert main(["dataset", "add", "pets", str(tmp_path / "data"), *home]) == 1
    assert "has one of this name" in capsys.readouterr().err
    assert main(["dataset", "remove", dataset_id, *home]) == 0
    assert main(["dataset", "remove", dataset_id, *home]) == 1
    capsys.readouterr()
    assert main(["token", "add", "--project", "pets", "--name", "anna", *home]) == 0
    made = capsys.readouterr().out.strip()
    assert main(["token", "list", *home]) == 0
    digits, project, name, _ = capsys.readouterr().out.split()
    assert (project, name) == ("pets", "anna")
    assert made.encode() not in (tmp_path / "home" / "labelengine.db").read_bytes()
    assert main(["token", "remove", digits[:6], *home]) == 0
    assert main(["token", "remove", digits, *home]) == 1
    capsys.readouterr()
    assert main(["token", "list", *home]) == 0
    assert capsys.readouterr() == ("", "no token (labelengine token add makes one)\n")
    assert main(["serve", "--root", str(tmp_path / "nothing"), *home]) == 1
    assert "--root: must be a folder" in capsys.readouterr().err
    assert main(["serve", "--workers", "0", *home]) == 2


def test_a_server_on_the_command_line(tmp_path: Path) -> None:
    """Started, asked, and ended by Ctrl-C, with a token that was made beside it."""
    home = tmp_path / "home"
    database = Database(home)
    token = database.add_token("p1")
    database.close()
    command = [sys.executable, "-m", "engine", "serve", "--home", str(home), "--port", "0"]
    with subprocess.Popen([*command[:-1], str(port := free_port())], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while True:
            try:
                url = f"http://127.0.0.1:{port}/v2/p1/datasets"
                assert httpx.get(url, headers={"X-Auth-Token": token}).json()["total_number"] == 0
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130, -signal.SIGINT)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# ---- The page that describes the calls. ----


def loaded_from_elsewhere(page: str) -> list[str]:
    """What a page loads or leads to elsewhere: addresses in tags and styles, scripts."""
    return re.findall(r"""<[^>]*(?:src|href)\s*=\s*["']?\s*(?:https?:)?//[^>]*|url\(|@import|<script""", page)


def test_the_page_of_the_calls_names_every_one_and_loads_nothing(address: str) -> None:
    page = httpx.get(f"{address}/docs").text
    assert loaded_from_elsewhere(page) == [] and "openapi.json" in page
    described = [route for route in ROUTES if route.include_in_schema]
    assert len(described) >= 20
    for route in described:
        for method in route.methods:
            assert f"<b>{method}</b> <code>{route.path_format}</code></td><td><b>{route.summary}</b>" in page
    for code in MEANINGS:
        assert f"<code>{code}</code>" in page
    for words in ("search_conditions", "joined by AND", 'href="#RequestBody"', 'id="SmartTaskConfig"', "n_clusters"):
        assert words in page
    targets = set(re.findall(r'href="#(\w+)"', page))
    assert len(targets) > 20 and all(f'id="{each}"' in page for each in targets)
    assert "HTTPValidationError" not in page
    assert httpx.get(f"{address}/redoc").status_code == 404


def test_the_page_of_the_calls_escapes_what_it_is_told() -> None:
    evil = "</title><script>\"'&"
    field = {"type": evil, "description": evil, "minimum": 1, "maximum": 9}
    call = {"summary": evil, "description": evil, "parameters": [{"name": evil, "in": "query", "description": evil}]}
    call |= {"requestBody": {"content": {evil: {"schema": {"$ref": f"#/{evil}"}}}}, "responses": {"200": {}}}
    forms = {evil: {"description": evil, "properties": {evil: field, "one": {"anyOf": [field, {"const": evil}]}}}}
    info = {"title": evil, "description": f"{evil}\n\n- `{evil}`: a"}
    page = manual_html({"info": info, "paths": {evil: {evil: call}}, "components": {"schemas": forms}})
    assert loaded_from_elsewhere(page) == [] and page.count("</title>") == 1
    assert page.count("&lt;script&gt;&quot;&#x27;&amp;") > 15 and " 1..9" in page


# ---- One model alone. ----


def test_a_model_is_served_alone(tmp_path: Path) -> None:
    dataset = colored(tmp_path / "data")
    model = onnx_colors(tmp_path / "rgb")
    app = create_service_app(model, "rgb", instances=1, collect=tmp_path / "kept")
    with served(app) as address:
        page = httpx.get(f"{address}/docs").text
        assert "/v1/infers/{service_id}" in page and "What is on an image" in page and not loaded_from_elsewhere(page)
        assert httpx.get(f"{address}/redoc").status_code == 404
        for number in (0, 1, 2):
            content = dataset.path(dataset[number]).read_bytes()
            answer = httpx.post(f"{address}/v1/infers/rgb", files={"file": content}, timeout=60).json()
            assert answer["predicted_label"] == ("red", "green", "blue")[number]
        for content, status in ((b"no image", 400), (b"", 400), (b"\x89PNG\r\n", 400)):
            answer = httpx.post(f"{address}/v1/infers/rgb", content=content, headers={"content-type": "image/png"})
            assert answer.status_code == status and answer.json()["error_code"] == "LE.4000"
        for body in ('{"image": 3}', '{"image": "%%"}', "[", '{"picture": "a"}'):
            problem(httpx.post(f"{address}/v1/infers/rgb", content=body), 400, "LE.4000")
        problem(httpx.post(f"{address}/v1/infers/other", content=b"x"), 404, "LE.4043")
        (tmp_path / "kept" / "images").rename(tmp_path / "kept" / "gone")
        (tmp_path / "kept" / "images").write_text("a disk that takes nothing")
        content = dataset.path(dataset[4]).read_bytes()
        answer = httpx.post(f"{address}/v1/infers/rgb", files={"file": content}, timeout=60)
        assert answer.status_code == 200  # what cannot be kept is answered all the same
    kept = list(read_manifest(tmp_path / "kept" / "collected.manifest"))
    assert [sample.labels[0].name for sample in kept] == ["red", "green", "blue"]
    for sample in kept:
        sure = sample.labels[0].confidence
        assert sure is not None and sample.hard_coefficient == pytest.approx(1 - sure, abs=1e-5)
        assert sample.hard == (sample.hard_coefficient >= 0.1)
        result = json.loads((tmp_path / "kept" / str(sample.inference_loc)).read_text())
        assert result["predicted_label"] == sample.labels[0].name
    # All the miners, afterwards: what was collected is a data set of automatic labels.
    (tmp_path / "kept" / "images").unlink()
    (tmp_path / "kept" / "gone").rename(tmp_path / "kept" / "images")
    write_manifest(tmp_path / "data" / "train.manifest", dataset.samples)
    train = ["--train", str(tmp_path / "data" / "train.manifest"), "--model", str(model)]
    assert main(["hard", str(tmp_path / "kept" / "collected.manifest"), *train, "--out", str(tmp_path / "hard")]) == 0
    with np.load(tmp_path / "hard" / "hard_scores.npz") as file:
        assert {1, 5, 19, 20, 21, 30} <= set(file["reasons"].tolist()) and len(file["coefficients"]) == 3


def test_several_models_share_the_traffic_and_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    """Of four requests three go to the one, one to the other; then a process is killed, and nobody notices."""
    dataset = colored(tmp_path / "data")
    onnx_colors(tmp_path / "models" / "a")
    onnx_colors(tmp_path / "models" / "b", labels=["r", "g", "b"])
    models = [
        {"path": f"models/{name}", "model_id": name, "model_name": name, "model_version": "1", "weight": weight}
        | {"instance_count": 1, "envs": {}}
        for name, weight in (("a", 75), ("b", 25))
    ]
    told = {"collect_sample": True, "output_dir": str(tmp_path / "kept"), "infer_result_output_dir": None}
    document = {"format": "labelengine-service", "version": 1, "models": models, **told}
    document |= {"confidence_scope": [0.0, 0.9], "hard_from": 0.1}
    (tmp_path / "service.json").write_text(json.dumps(document))
    service = Service("s", read_service(tmp_path), tmp_path)
    try:
        content = dataset.path(dataset[0]).read_bytes()
        said = [service.answer(content)["predicted_label"] for _ in range(8)]
        assert said.count("red") == 6 and said.count("r") == 2 and said[:4].count("r") == 1
        for pool in service._pools.values():
            for process in pool._processes.values():
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.2)
        assert service.answer(content)["predicted_label"] in ("red", "r")
    finally:
        service.close()
    document["models"] = [{**models[0], "weight": 60}, models[1]]
    (tmp_path / "service.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="weights sum to 100"):
        read_service(tmp_path)
    document["models"] = [{**models[0], "path": "../elsewhere", "weight": 100}]
    (tmp_path / "service.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="path must lie below the folder"):
        read_service(tmp_path)


def test_a_service_that_is_removed_ends_its_processes_even_those_that_hang(tmp_path: Path) -> None:
    content = colored(tmp_path / "data").sources.path("00.png").read_bytes()
    service = Service("s", read_service(onnx_colors(tmp_path / "rgb")), tmp_path)
    assert service.answer(content)["predicted_label"] == "red"
    (process,) = service._pools[0]._processes.values()
    os.kill(process.pid, signal.SIGSTOP)
    said: list[str] = []

    def ask() -> None:
        try:
            service.answer(content)
        except InputError as error:
            said.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    while not service._pools[0]._pending_work_items:
        time.sleep(0.01)
    try:
        service.close()
        asking.join(20)
        assert said == ["service s: has been removed"]
        deadline = time.monotonic() + 20
        while process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()


def test_a_service_that_was_removed_while_an_image_came_is_not_opened_again(home: Path, tmp_path: Path) -> None:
    database = Database(home)
    row = ServiceRow("s", "p1", None, None, {"folder": str(onnx_colors(tmp_path / "rgb"))}, 0.0)
    database.add_service(row)
    services = Services(home, database)
    found = services.row("s")
    services.remove(found)
    with pytest.raises(Problem) as error:
        services.answer(found, b"no image")
    assert error.value.code == NO_SERVICE and services._open == {}


def test_what_a_deployment_asks_for(tmp_path: Path) -> None:
    """Existing models are served as they are; one without a model_id is trained; weights are needed for several."""
    shelf = Shelf(tmp_path / "home")
    dataset = painted(tmp_path / "few")
    known = shelf.add(onnx_colors(tmp_path / "rgb"), name="rgb")

    def deployed(name: str, **config: Any) -> dict[str, Any]:
        body = {"task_type": "auto-deploy", "config": {"parameters": LEARNING, **config}}
        return run_request(parse_request(body), dataset, tmp_path / name, shelf=shelf)["result"]

    listed = [{"model_id": known.model_id, "weight": 30, "instance_count": 2, "envs": {"A": "b"}}, {"weight": 70}]
    config = {"inf_config_list": listed, "confidence_scope": "0.20-0.80", "collect_sample": False}
    result = deployed("both", **config)
    assert result["trained"] and result["model_name"] == "dataset" and result["models"][0]["weight"] == 30
    plan = read_service(tmp_path / "both")
    assert [(each.weight, each.instance_count, dict(each.envs)) for each in plan.models] == [
        (30, 2, {"A": "b"}),
        (70, 1, {}),
    ]
    assert plan.confidence_scope == (0.2, 0.8) and not plan.collect_sample
    result = deployed("known", model_name="rgb")
    assert not result["trained"] and result["model_id"] == known.model_id
    with pytest.raises(UsageError, match="weight must be given"):
        deployed("no", inf_config_list=[{"model_id": known.model_id}, {}])
    with pytest.raises(UsageError, match="weights must sum to 100"):
        deployed("no", inf_config_list=[{"model_id": known.model_id, "weight": 50}, {"weight": 40}])
    with pytest.raises(UsageError, match="for all models but the one that is trained"):
        deployed("no", inf_config_list=[{"weight": 50}, {"weight": 50}])
    assert not (tmp_path / "no").exists()
    shelf.add(known.path, name="dataset", version="1.0")
    with pytest.raises(InputError, match=r"dataset 1\.0: must be one model"):
        deployed("taken", model_version="1.0")
    assert not (tmp_path / "taken" / CACHE).exists(), "said before anything is trained"


def test_a_deployment_that_failed_after_its_training_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model is imported already, and trained but once; another task's may not be called so."""
    shelf, dataset = Shelf(tmp_path / "home"), painted(tmp_path / "few")

    def deployed(number: int, **options: Any) -> dict[str, Any]:
        seed = [{"label": "seed", "value": number}]
        body = {"task_type": "auto-deploy", "config": {"model_version": "1.0", "parameters": [*LEARNING, *seed]}}
        return run_request(parse_request(body), dataset, tmp_path / "out", shelf=shelf, **options)

    def refuses(*_: Any, **__: Any) -> None:
        raise OutputError("no space")

    def trains(*_: Any, **__: Any) -> None:
        raise AssertionError("trains again")

    with monkeypatch.context() as patched:
        patched.setattr(deploying, "write_service", refuses)
        with pytest.raises(OutputError, match="no space"):
            deployed(1)
    monkeypatch.setattr(deploying, "auto_label", trains)
    (model,) = shelf.all()[0]
    answer = deployed(1)
    assert answer["result"]["model_id"] == model.model_id and answer["result"]["trained"]
    assert f"{model.model_name} 1.0 was trained by an earlier try of this task" in answer["notices"]
    with pytest.raises(InputError, match=r"1\.0: must be one model"):
        deployed(2, overwrite=True)
