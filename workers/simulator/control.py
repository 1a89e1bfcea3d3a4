"""The control plane under `/_simulator`: makes productions, faults and subscriptions, and tells the truth. No key."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from workers.simulator.partner import PartnerApi, Refusal, body_of, shown_subscription
from workers.simulator.plans import JsonShape, Plan
from workers.simulator.simulation import Simulation, has_deliverables
from workers.simulator.truth import counters, truth
from workers.simulator.world import NIL, Production

BASE = "/_simulator"


class WantedProduction(Plan):
    account_id: str = ""


class WantedVersion(JsonShape):
    deliverable_id: str = ""
    size_bytes: int | None = Field(None, ge=0, validation_alias="bytes")


class WantedSubscription(JsonShape):
    url: str
    secret: str
    event_types: frozenset[str] = frozenset()


class WantedEvent(JsonShape):
    """Without a production it is about none, as `webhook.test` is."""

    event_type: str = "webhook.test"
    production_id: str = NIL
    data: dict[str, Any] = Field(default_factory=dict)


class Control:
    def __init__(self, simulation: Simulation, partner_api: PartnerApi) -> None:
        self._sim = simulation
        self._partner_api = partner_api

    def routes(self) -> list[Route]:
        one = f"{BASE}/productions/{{production_id}}"
        return [
            Route(f"{BASE}/productions", self.create, methods=["POST"]),
            Route(f"{one}/release", self.release, methods=["POST"]),
            Route(f"{one}/deliverables", self.relist, methods=["POST"]),
            Route(f"{BASE}/subscriptions", self.subscribe, methods=["POST"]),
            Route(f"{BASE}/events", self.emit, methods=["POST"]),
            Route(f"{BASE}/faults", self.change_faults, methods=["PATCH"]),
            Route(f"{BASE}/truth", self.truth, methods=["GET"]),
            Route(f"{BASE}/counters", self.counters, methods=["GET"]),
            Route(f"{BASE}/mails", self.mails, methods=["GET"]),
            Route(f"{BASE}/health", self.health, methods=["GET"]),
        ]

    async def create(self, request: Request) -> Response:
        wanted = await body_of(request, WantedProduction)
        named = {name: getattr(wanted, name) for name in wanted.model_fields_set - {"account_id"}}
        plan = self._sim.settings.plan().model_copy(update=named)
        production = self._sim.start(plan, wanted.account_id)
        made = {"productionId": production.production_id, "accountId": production.account_id}
        return JSONResponse(made, 201)

    async def release(self, request: Request) -> Response:
        production = self._production(request.path_params["production_id"])
        self._sim.release(production)
        return JSONResponse({"status": production.status}, 202)

    async def relist(self, request: Request) -> Response:
        production = self._production(request.path_params["production_id"])
        wanted = await body_of(request, WantedVersion)
        if not has_deliverables(production):
            raise Refusal(409, "DELIVERABLES_NOT_READY", f"The production is {production.status}.")
        try:
            await self._sim.relist(production, wanted.deliverable_id, wanted.size_bytes)
        except KeyError:
            raise Refusal(404, "NOT_FOUND", "There is no such deliverable.") from None
        return JSONResponse({"deliverables": await self._sim.listing(production)})

    async def subscribe(self, request: Request) -> Response:
        wanted = await body_of(request, WantedSubscription)
        try:
            made = self._sim.sender.subscribe(wanted.url, wanted.secret, wanted.event_types)
        except ValueError as error:
            raise Refusal(400, "INVALID_REQUEST", f"secret: {error}") from None
        return JSONResponse(shown_subscription(made), 201)

    async def emit(self, request: Request) -> Response:
        wanted = await body_of(request, WantedEvent)
        outside = wanted.production_id == NIL
        production = self._sim.world.outside if outside else self._production(wanted.production_id)
        self._sim.emit(production, wanted.event_type, wanted.data)
        return JSONResponse({"sequenceNumber": len(production.events)}, 202)

    async def change_faults(self, request: Request) -> Response:
        try:
            self._sim.faults.change(await request.json())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise Refusal(400, "INVALID_REQUEST", f"{first['loc']}: {first['msg']}") from None
        except ValueError as error:
            raise Refusal(400, "INVALID_REQUEST", str(error)) from None
        return JSONResponse(self._sim.faults.shown())

    async def truth(self, request: Request) -> Response:
        return JSONResponse(await truth(self._sim))

    async def counters(self, request: Request) -> Response:
        return JSONResponse(counters(self._sim))

    async def mails(self, request: Request) -> Response:
        """The tokens of the verification mails that were not yet used."""
        return JSONResponse({"verificationTokens": self._partner_api.keys.tokens})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    def _production(self, production_id: str) -> Production:
        production = self._sim.world.productions.get(production_id.lower())
        if production is None:
            raise Refusal(404, "NOT_FOUND", "There is no such production.")
        return production
