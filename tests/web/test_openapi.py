"""The description of the HTTP interface: all of it, and nothing else."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from service.core.production import Production
from service.core.view import describe
from service.runtime import Runtime
from service.settings import load
from service.web import app, openapi
from tests.store.making import event, keep, listing, new_id, take_in
from tests.web.conftest import Web

DOCUMENT: Any = openapi.document()
OPERATIONS = {
    (method.upper(), path): operation
    for path, calls in DOCUMENT["paths"].items()
    for method, operation in calls.items()
}
OPEN = {("POST", "/webhooks/jarai"), ("GET", "/healthz"), ("GET", "/readyz")}


def references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(one) for one in value.values()))
    return set().union(*(references(one) for one in value)) if isinstance(value, list | tuple) else set()


def test_every_route_is_described_and_everything_described_is_a_route() -> None:
    routes = [route for route in app.create(Runtime(load({}, None))).routes if isinstance(route, Route)]
    served = {(method, route.path) for route in routes for method in route.methods or () if method != "HEAD"}
    assert served == set(OPERATIONS)


def test_every_call_but_the_public_ones_wants_the_token() -> None:
    assert {call for call, operation in OPERATIONS.items() if not operation.get("security")} == OPEN
    assert all(operation["security"] == [{"token": []}] for call, operation in OPERATIONS.items() if call not in OPEN)


def test_every_schema_is_used_and_every_reference_leads_to_one() -> None:
    assert references(DOCUMENT) == {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}


def test_every_call_has_a_name_of_its_own_and_every_link_leads_to_one() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    links = [
        link["operationId"]
        for operation in OPERATIONS.values()
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert links
    assert set(links) <= set(names)


def test_a_production_is_described_field_by_field() -> None:
    shown = describe(Production(production_id=new_id(), created_at=datetime.now(UTC)))
    assert list(openapi.SCHEMAS["Production"]["properties"]) == list(shown)


def test_every_answer_of_the_webhook_is_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (row,) = re.findall(r"^\| `POST /webhooks/jarai` \|.*$", readme, re.MULTILINE)
    assert set(re.findall(r"\b[2-5]\d\d\b", row)) == set(OPERATIONS["POST", "/webhooks/jarai"]["responses"])


def test_the_document_that_is_served_is_this_one(web: Web) -> None:
    assert web.get("/openapi.json") == DOCUMENT


@pytest.mark.parametrize("field", ["Production", "Deliverable", "DeadLetter"])
def test_what_is_shown_has_exactly_the_described_fields(web: Web, field: str) -> None:
    identity = new_id()
    data = listing("https://store.blob.core.windows.net/film.mp4?sig=x")
    take_in(web.redis, event(identity, 1, "deliverable.ready", data=data))
    keep(web.redis, b"x")
    shown = {
        "Production": web.get(f"/productions/{identity}"),
        "Deliverable": web.get(f"/productions/{identity}")["deliverables"][0],
        "DeadLetter": web.get("/deadletters")["deadletters"][0],
    }[field]
    assert set(shown) == set(openapi.SCHEMAS[field]["properties"])
