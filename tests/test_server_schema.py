"""Requests made up from the OpenAPI document: whatever comes, the answer is one that the document has, and no 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from conftest import painted
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from test_server import served

from engine.manifest import write_manifest
from engine.server.app import create_app
from engine.server.database import Database
from engine.server.datasets import add_dataset


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    place: Path = tmp_path_factory.mktemp("schema")
    dataset = painted(place / "few")
    write_manifest(place / "few" / "few.manifest", dataset.samples)
    database = Database(place / "home")
    dataset_id = add_dataset(database, "p1", "few", place / "few" / "few.manifest")
    database.close()
    app = create_app(place / "home", roots=[place / "few"], workers=1, tokens=False)
    with served(app) as address:
        found = schemathesis.openapi.from_url(f"{address}/openapi.json")
        found.config.parameters = {"project_id": "p1", "dataset_id": dataset_id}
        yield found


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_route_answers_what_its_document_says(case: Any) -> None:
    case.call_and_validate(
        checks=[not_a_server_error, status_code_conformance, response_schema_conformance], timeout=60
    )
