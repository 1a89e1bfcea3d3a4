"""What is served over HTTP, as an OpenAPI 3.1 document. Written by hand; tests hold it against routes and answers.

It is the truth for clients: a field that is not described may go away, one that is described does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_FILLED_IN: Schema = {"type": "string", "pattern": r"\S"}
_NUMBER: Schema = {"type": "integer", "minimum": 0}
_NUMBER_OR_NULL: Schema = {"type": ["integer", "null"], "minimum": 0}
_TRUTH: Schema = {"type": "boolean"}
_ID: Schema = {"type": "string", "format": "uuid"}
_INSTANT: Schema = {"type": "string", "format": "date-time"}
_INSTANT_OR_NULL: Schema = {"anyOf": [_INSTANT, {"type": "null"}]}


def _object(properties: Mapping[str, Schema], optional: Collection[str] = (), **more: Any) -> Schema:
    """Every property that is not optional is always there; others may follow in a later version."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, **more}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: Mapping[str, Schema] = {
    "Error": _object({"error": {**_TEXT, "pattern": "^[A-Z0-9_]+$"}, "message": _TEXT}, additionalProperties=False),
    "Done": _object({"status": _TEXT, "id": _TEXT}, additionalProperties=False),
    "Wished": _object({"status": _TEXT, "productionId": _ID}, additionalProperties=False),
    "Wanted": {
        "type": "object",
        "properties": {
            "accountId": _ID,
            "topic": {**_FILLED_IN, "maxLength": 500},
            "languageId": _ID,
            "countryId": _ID,
            "avatarId": _ID,
            "projectTypeSlug": {"anyOf": [{**_FILLED_IN, "maxLength": 500}, {"type": "null"}]},
            "metadataMD": {"anyOf": [{**_FILLED_IN, "maxLength": 4096}, {"type": "null"}], "description": "Markdown."},
            "retryExpired": {
                "type": "integer", "minimum": 0, "maximum": 10,
                "description": "How often to trigger it again should JARAI let it expire; left out: RETRY_EXPIRED.",
            },
            "again": {**_TRUTH, "description": "Although nobody knows whether the same was started before."},
        },
        "required": ["accountId", "topic", "languageId", "countryId", "avatarId"],
        "additionalProperties": False,
    },
    "Event": {
        **_object({
            "eventId": _ID,
            "eventType": {"type": "string", "minLength": 1, "maxLength": 200},
            "productionId": _ID,
            "accountId": _ID,
            "timestamp": _INSTANT,
            "sequenceNumber": {"type": "integer", "minimum": 0, "maximum": 2**53 - 1},
        }),
        "description": "JARAI's. Whatever else is in it is kept, and so is, as a dead letter, what is no event at all.",
    },
    "Kept": {
        "type": "object",
        "properties": {
            "status": {"enum": ["accepted", "duplicate", "quarantined"]},
            "eventId": {**_ID, "description": "Missing where the body has none that can be read."},
            "reason": {**_TEXT, "description": "Why it is quarantined."},
        },
        "required": ["status"],
        "additionalProperties": False,
    },
    "Deliverable": _object({
        "id": _TEXT_OR_NULL,
        "type": _TEXT_OR_NULL,
        "state": _TEXT,
        "file": _TEXT_OR_NULL,
        "bytes": _NUMBER_OR_NULL,
        "sha256": _TEXT_OR_NULL,
        "storedAt": _INSTANT_OR_NULL,
        "version": _NUMBER,
        "current": _TRUTH,
        "receivedBytes": _NUMBER,
        "bytesPerSecond": _NUMBER_OR_NULL,
        "attempts": _NUMBER,
        "error": _TEXT_OR_NULL,
        "nextAttemptAt": _INSTANT_OR_NULL,
    }),
    "Production": _object({
        "productionId": _ID,
        "accountId": _TEXT_OR_NULL,
        "status": _TEXT_OR_NULL,
        "terminal": _TRUTH,
        "settled": _TRUTH,
        "sequenceNumber": _NUMBER_OR_NULL,
        "updatedAt": _INSTANT,
        "source": _TEXT_OR_NULL,
        "sandbox": _TRUTH,
        "expiresAt": _INSTANT_OR_NULL,
        "error": {
            "anyOf": [_object({"code": _TEXT_OR_NULL, "message": _TEXT_OR_NULL}), {"type": "null"}],
        },
        "retryOf": {"type": ["string", "null"], "description": "The first of those that expired before this one."},
        "retriedAs": {"type": ["string", "null"], "description": "The one that was triggered after it had expired."},
        "refused": _TEXT_OR_NULL,
        "nextPollAt": _INSTANT_OR_NULL,
        "folder": _TEXT_OR_NULL,
        "deliverables": _list(_named("Deliverable")),
    }),
    "Productions": _object({
        "productions": _list(_named("Production")),
        "next": {"type": ["string", "null"], "description": "The `after` of the following page; null: that was all."},
    }),
    "Timeline": _object({
        "productionId": _ID,
        "timeline": _list({**_object({"at": _INSTANT, "kind": _TEXT}), "description": "The oldest first."}),
    }),
    "DeadLetter": _object({
        "id": _TEXT,
        "kind": {"enum": ["event", "production", "deliverable", "question", "notice"]},
        "reason": _TEXT,
        "addedAt": _INSTANT,
        "productionId": _TEXT_OR_NULL,
        "details": {"type": "object"},
        "bodyBytes": {**_NUMBER, "description": "Of what was sent: by JARAI (an event), or by us (a notice)."},
    }, optional=("bodyBytes",)),
    "DeadLetters": _object({"deadletters": _list(_named("DeadLetter")), "total": _NUMBER}),
    "Readiness": _object({
        "ready": _TRUTH,
        "problems": {"type": "object", "additionalProperties": _TEXT},
        "warnings": _list(_TEXT),
    }),
    "Alive": _object({"status": {"const": "ok"}}),
}  # fmt: skip

_WHY = {
    400: "Not a request of this form.",
    401: "The bearer token is missing or wrong.",
    404: "Not known here; also without ADMIN_TOKEN in the settings.",
    408: "The body took too long to arrive.",
    409: "It still can't be used, and stays where it is.",
    413: "The body is too large.",
    429: "JARAI allows no more requests, or productions, before `Retry-After`.",
    431: "The head of the request is too large.",
    502: "JARAI gave no answer of use, or refuses this deployment's API key.",
    503: "Can't be done now; try again.",
}


def _answer(what: str, schema: Schema | None, media_type: str = "application/json", **headers: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": what}
    if schema is not None:
        answer["content"] = {media_type: {"schema": schema}}
    if headers:
        answer["headers"] = {
            name.replace("_", "-"): {"description": text, "required": True, "schema": _TEXT}
            for name, text in headers.items()
        }
    return answer


def _error(status: int) -> dict[str, Any]:
    seconds = {"Retry_After": "Seconds."}
    headers = {401: {"WWW_Authenticate": "`Bearer`"}, 429: seconds, 503: seconds}.get(status, {})
    return _answer(_WHY[status], _named("Error"), **headers)


def _parameter(where: str, name: str, schema: Schema, what: str) -> dict[str, Any]:
    return {"in": where, "name": name, "schema": schema, "description": what, "required": where == "path"}


_PRODUCTION_ID = _parameter("path", "id", _ID, "The production's.")
_LETTER_ID = _parameter("path", "id", {"type": "string", "minLength": 1}, "The dead letter's.")


def _guarded(
    name: str,
    summary: str,
    status: int,
    schema: Schema,
    *errors: int,
    parameters: tuple[Mapping[str, Any], ...] = (),
    links: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A call that wants the bearer token and answers `status`."""
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "security": [{"token": []}]}
    if parameters:
        operation["parameters"] = list(parameters)
    responses = {str(status): _answer(summary, schema) | ({"links": links} if links else {})}
    responses |= {str(one): _error(one) for one in sorted({*errors, 400, 401, 404, 431, 503})}
    return operation | {"responses": responses} | more


def _asks_jarai(call: dict[str, Any], conflict: str) -> dict[str, Any]:
    """The same call, which may also be answered by what JARAI says."""
    call["responses"] |= {
        "409": _answer(conflict, _named("Error")),
        "4XX": _answer("JARAI's own refusal, with its status and code.", _named("Error")),
    }
    return call


def _links(where: str, *operations: str) -> dict[str, Any]:
    """Where the first of a list can be asked about."""
    return {one: {"operationId": one, "parameters": {"path.id": f"$response.body#/{where}"}} for one in operations}


_PATHS: Mapping[str, Mapping[str, Any]] = {
    "/webhooks/jarai": {
        "post": {
            "operationId": "webhook",
            "summary": "Take in an event of JARAI's.",
            "parameters": [
                {
                    "in": "header",
                    "name": "X-JARAI-Signature",
                    "required": True,
                    "schema": {"type": "string", "pattern": "^sha256=[0-9a-fA-F]{64}$"},
                    "description": "HMAC-SHA256 of the raw body under one of JARAI_WEBHOOK_SECRETS.",
                }
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _named("Event")}}},
            "responses": {
                "200": _answer("The same event again.", _named("Kept")),
                "202": _answer("Durable: accepted, or quarantined if it can't be used.", _named("Kept")),
                "400": _error(400),
                "401": _answer("The signature is missing or wrong; nothing is kept.", _named("Error")),
                "408": _error(408),
                "413": _error(413),
                "431": _error(431),
                "503": _error(503),
            },
        }
    },
    "/healthz": {
        "get": {
            "operationId": "healthz",
            "summary": "Does the process run?",
            "responses": {"200": _answer("It does.", _named("Alive")), "400": _error(400), "431": _error(431)},
        }
    },
    "/readyz": {
        "get": {
            "operationId": "readyz",
            "summary": "Is an event that arrives now kept?",
            "responses": {
                "200": _answer("It is. `warnings` say how Redis may lose it later.", _named("Readiness")),
                "400": _error(400),
                "431": _error(431),
                "503": _answer("It is not; `problems` say why.", _named("Readiness")),
            },
        }
    },
    "/metrics": {
        "get": {
            **_guarded("metrics", "Prometheus text.", 200, _TEXT),
            "responses": {
                **_guarded("metrics", "", 200, _TEXT)["responses"],
                "200": _answer("Prometheus text.", _TEXT, "text/plain"),
            },
        }
    },
    "/openapi.json": {"get": _guarded("openapi", "This document.", 200, {"type": "object"})},
    "/productions": {
        "get": _guarded(
            "productions", "Productions, the newest first.", 200, _named("Productions"),
            links=_links("productions/0/productionId", "production", "timeline", "track", "refresh"),
            parameters=(
                _parameter("query", "status", _TEXT, "Only those in this status."),
                _parameter("query", "account", _TEXT, "Only those of this account."),
                _parameter("query", "limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
                           "At most so many."),
                _parameter("query", "after", {"anyOf": [_ID, {"const": ""}]}, "`next` of the page before."),
            ),
        ),
        "post": _asks_jarai(
            _guarded(
                "trigger", "Have JARAI start a production, and follow it.", 202, _named("Wished"), 413, 429, 502,
                requestBody={"required": True, "content": {"application/json": {"schema": _named("Wanted")}}},
            ),
            "JARAI refuses (the account's budget), or the outcome of the same request before is not known.",
        ),
    },
    "/productions/{id}": {
        "get": _guarded("production", "One production.", 200, _named("Production"), parameters=(_PRODUCTION_ID,)),
        "delete": _asks_jarai(
            _guarded(
                "cancel", "Have JARAI cancel it; its status follows.", 202, _named("Wished"), 429, 502,
                parameters=(_PRODUCTION_ID,),
            ),
            "JARAI refuses, since it has ended already.",
        ),
    },
    "/productions/{id}/timeline": {
        "get": _guarded(
            "timeline", "Everything that happened to it.", 200, _named("Timeline"), parameters=(_PRODUCTION_ID,)
        )
    },
    "/productions/{id}/track": {
        "post": _guarded(
            "track", "Follow a production that was triggered elsewhere.", 202, _named("Wished"), 413,
            parameters=(_PRODUCTION_ID,),
            requestBody={
                "required": False,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"accountId": {"anyOf": [_ID, {"type": "null"}]}},
                        }
                    }
                },
            },
        )
    },
    "/productions/{id}/refresh": {
        "post": _guarded("refresh", "Ask JARAI now.", 202, _named("Wished"), parameters=(_PRODUCTION_ID,))
    },
    "/deadletters": {
        "get": _guarded(
            "deadletters", "Dead letters, the newest first, without bodies.", 200, _named("DeadLetters"),
            links=_links("deadletters/0/id", "retry", "discard"),
        )
    },
    "/deadletters/{id}/retry": {
        "post": _guarded("retry", "Try again what was given up.", 202, _named("Done"), 409, parameters=(_LETTER_ID,))
    },
    "/deadletters/{id}": {
        "delete": _guarded("discard", "Throw a dead letter away.", 200, _named("Done"), parameters=(_LETTER_ID,))
    },
}  # fmt: skip


def document() -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "jarai-receiver", "version": version("jarai-receiver")},
        "paths": {path: dict(calls) for path, calls in _PATHS.items()},
        "components": {
            "schemas": dict(SCHEMAS),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "ADMIN_TOKEN."}},
        },
    }


async def show(request: Request) -> JSONResponse:
    """It describes what only a holder of the token may use, so only such a one gets it."""
    return JSONResponse(document())
