"""Requests made up from the OpenAPI document: whatever comes, the answer is one that the document has, and no 5xx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import schemathesis
from conftest import painted
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from test_server import served

from engine.manifest import write_manifest
from engine.server.app import create_app
from engine.server.database import Database
from engine.server.datasets import add_dataset

CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


def test_every_route_answers_what_its_document_says(tmp_path: Path) -> None:
    dataset = painted(tmp_path / "few")
    write_manifest(tmp_path / "few" / "few.manifest", dataset.samples)
    database = Database(tmp_path / "home")
    dataset_id = add_dataset(database, "p1", "few", tmp_path / "few" / "few.manifest")
    database.close()
    asked = 0
    with served(create_app(tmp_path / "home", roots=[tmp_path / "few"], tokens=False)) as address:
        found = schemathesis.openapi.from_url(f"{address}/openapi.json")
        found.config.parameters = {"project_id": "p1", "dataset_id": dataset_id}
        operations = [each.ok() for each in found.get_all_operations()]
        operations.sort(key=lambda each: each.method.upper() == "DELETE")  # what is gone tells little
        for operation in operations:

            @given(case=operation.as_strategy())
            @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
            def ask(case: Any) -> None:
                nonlocal asked
                case.call_and_validate(checks=CHECKS, timeout=60)
                asked += 1

            ask()
    assert len(operations) >= 20 and asked >= 10 * len(operations)
