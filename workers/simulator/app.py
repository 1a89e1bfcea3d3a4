"""Composes the application: Partner API, blob store and control plane around one simulation."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from workers.simulator import blobs
from workers.simulator.control import Control
from workers.simulator.journal import BlobRequest
from workers.simulator.partner import PartnerApi, Refusal
from workers.simulator.settings import Settings
from workers.simulator.simulation import Simulation, blob_path
from workers.simulator.world import Deliverable

_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}  # control plane and blob store


def application(settings: Settings, public_url: str) -> Starlette:
    simulation = Simulation(settings, public_url)
    partner_api = PartnerApi(simulation)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if settings.webhook_url:
            simulation.sender.subscribe(settings.webhook_url, settings.webhook_secret)
        yield
        await simulation.close()

    async def blob(request: Request) -> ASGIApp:
        return await _blob(simulation, request)

    return Starlette(
        routes=[
            *partner_api.routes(),
            *Control(simulation, partner_api).routes(),
            Route("/blobs/{account_id}/{production_id}/{name}", blob, methods=["GET", "HEAD"]),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _unroutable},
        lifespan=lifespan,
    )


async def _blob(simulation: Simulation, request: Request) -> ASGIApp:
    headers = dict(request.headers)
    path = request.url.path
    noted = BlobRequest(datetime.now(UTC), request.method, path, headers.get("range", ""))
    simulation.journal.add_blob(noted)
    refused = simulation.signer.refusal(path, request.url.query, datetime.now(UTC))
    if refused is None and (refused := blobs.refusal_by_fault(simulation.faults, path)):
        noted.faults.append("refused")
    if refused is not None:
        return blobs.BlobAnswer(refused, noted)
    deliverable = _found(simulation, request)
    if deliverable is None:
        missing = blobs.Refused(404, "BlobNotFound", "There is no such file.", {})
        return blobs.BlobAnswer(missing, noted)
    if "range" in headers and simulation.faults.strikes("blob_ignore_range", path):
        noted.faults.append("blob_ignore_range")
        del headers["range"]
    decision = blobs.decide(deliverable, await simulation.digests.of(deliverable.content), headers)
    if isinstance(decision, blobs.Granted) and request.method == "GET":
        decision = blobs.spoiled(decision, simulation.faults, noted)
    return blobs.BlobAnswer(decision, noted)


def _found(simulation: Simulation, request: Request) -> Deliverable | None:
    production = simulation.world.productions.get(request.path_params["production_id"])
    if production is None:
        return None
    path = request.url.path
    return next((each for each in production.deliverables if blob_path(production, each) == path), None)


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return refusal.response()


async def _unroutable(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "INVALID_REQUEST")
    response = Refusal(error.status_code, code, error.detail).response()
    response.headers.update({**(error.headers or {}), "X-Correlation-Id": str(uuid.uuid4())})
    return response
