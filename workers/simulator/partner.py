"""The Partner API: what each call of the contract takes and answers, and the gate in front of all of them."""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from workers.simulator.connection import Dropped
from workers.simulator.delivery import Subscription
from workers.simulator.journal import ApiRequest
from workers.simulator.settings import made_api_key, made_webhook_secret
from workers.simulator.simulation import Simulation, has_deliverables
from workers.simulator.world import Production, iso

BASE = "/v1/partner"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_LARGEST_BODY_BYTES = 1 << 18
_MOST_SUBSCRIPTIONS = 100
DOCUMENTED_TYPES = (
    "production.queued",
    "production.step.complete",
    "production.published",
    "production.failed",
    "deliverable.ready",
    "webhook.test",
)
_OLD_KEY_LIFE = timedelta(hours=24)
Shape = TypeVar("Shape", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Answer:
    payload: Mapping[str, object] | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An answer that is not 2xx; its body has the documented form."""

    def __init__(self, status: int, code: str, message: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    def response(self) -> Response:
        body = {"error": self.code, "message": self.message, "retryAfterSeconds": self.retry_after_seconds}
        return JSONResponse(body, self.status)


def _id(text: str) -> str:
    return str(uuid.UUID(text))


Id = Annotated[str, AfterValidator(_id)]


class _Body(BaseModel):
    model_config = {"alias_generator": to_camel, "populate_by_name": True}


class Registration(_Body):
    organisation_name: str = Field(min_length=1)
    contact_email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    contact_name: str = Field(min_length=1)


class Trigger(_Body):
    topic: str = Field(min_length=1, max_length=500)
    language_id: Id
    country_id: Id
    avatar_id: Id
    project_type_slug: str | None = None
    metadata_md: str | None = Field(None, max_length=4096, validation_alias="metadataMD")


class Subscribing(_Body):
    endpoint_url: str
    event_types: list[str] = Field(min_length=1)
    account_ids: list[Id] = Field(default_factory=list, max_length=50)
    account_scope_id: Id | None = None


async def body_of(request: Request, shape: type[Shape]) -> Shape:
    raw = await request.body()
    if len(raw) > _LARGEST_BODY_BYTES:
        raise Refusal(413, "PAYLOAD_TOO_LARGE", "The body is too large.")
    try:
        return shape.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise Refusal(400, "INVALID_REQUEST", f"{where}: {first['msg']}") from None


class Keys:
    """The API keys of the one partner, each with the time until which it works."""

    def __init__(self, first: str) -> None:
        self._until: dict[str, datetime | None] = {first: None}
        self.tokens: list[str] = []

    def is_valid(self, key: str, now: datetime) -> bool:
        until = self._until.get(key, now)
        return until is None or now < until

    def rotate(self, old: str, now: datetime) -> str:
        new = self.add(next(p for p in ("jarai_test_", "jarai_live_", "jarai_", "") if old.startswith(p)))
        self._until[old] = now + _OLD_KEY_LIFE
        return new

    def add(self, prefix: str) -> str:
        key = made_api_key(prefix or "jarai_")
        self._until[key] = None
        return key


class PartnerApi:
    """One method per call. What goes before and after each of them is in `_guarded`."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self.keys = Keys(simulation.settings.api_key)

    def routes(self) -> list[Route]:
        one = "/productions/{production_id}"
        return [
            self._route("POST", "/partners/register", "", self.register),
            self._route("GET", "/partners/verify", "", self.verify),
            self._route("POST", "/partners/keys/rotate", "-", self.rotate),
            self._route("GET", "/accounts", "accounts:read", self.accounts),
            self._route("POST", "/accounts/{account_id}/productions", "productions:write", self.trigger),
            self._route("GET", one, "productions:read", self.status),
            self._route("DELETE", one, "productions:write", self.cancel),
            self._route("GET", f"{one}/deliverables", "deliverables:read", self.deliverables),
            self._route("GET", f"{one}/performance", "analytics:read", self.performance),
            self._route("GET", "/partner/usage", "analytics:read", self.usage),
            self._route("POST", "/webhooks", "webhooks:write", self.subscribe),
            self._route("GET", "/webhooks", "webhooks:read", self.subscriptions),
            self._route("DELETE", "/webhooks/{webhook_id}", "webhooks:write", self.unsubscribe),
            *(self._route(each, "/{rest:path}", "-", self.nowhere) for each in _METHODS),
        ]

    async def register(self, request: Request) -> Answer:
        await body_of(request, Registration)
        self.keys.tokens.append(str(uuid.uuid4()))
        return Answer({"partnerId": self._sim.world.partner_id, "status": "PendingVerification"}, 202)

    async def verify(self, request: Request) -> Answer:
        token = request.query_params.get("token", "")
        if token not in self.keys.tokens:
            raise Refusal(400, "INVALID_REQUEST", "The token is not valid.")
        self.keys.tokens.remove(token)
        return Answer({"partnerId": self._sim.world.partner_id, "apiKey": self.keys.add("jarai_live_")})

    async def rotate(self, request: Request) -> Answer:
        now = datetime.now(UTC)
        new = self.keys.rotate(request.headers["x-api-key"], now)
        return Answer({"apiKey": new, "previousKeyExpiresAt": iso(now + _OLD_KEY_LIFE)})

    async def accounts(self, request: Request) -> Answer:
        accounts = [
            {
                "accountId": account.account_id,
                "name": f"Simulated account {number}",
                "avatars": [{"avatarId": account.avatar_id, "name": "Ada"}],
                "connectedPlatforms": ["YouTube"],
            }
            for number, account in enumerate(self._sim.world.accounts, start=1)
        ]
        return Answer({"accounts": accounts})

    async def trigger(self, request: Request) -> Answer:
        account_id = request.path_params["account_id"]
        if account_id not in {account.account_id for account in self._sim.world.accounts}:
            raise Refusal(404, "NOT_FOUND", "There is no such account.")
        wanted = await body_of(request, Trigger)
        wait = self._sim.budget.admit_production(account_id, datetime.now(UTC))
        if wait is not None:
            raise Refusal(429, "RATE_LIMIT_EXCEEDED", "No more productions today for this account.", wait)
        production = self._sim.start(self._sim.settings.plan(), account_id, wanted.topic)
        location = f"{self._sim.public_url}{BASE}/productions/{production.production_id}"
        return Answer(_shown(production), 202, {"Location": location})

    async def status(self, request: Request) -> Answer:
        return Answer(_shown(self._production(request)))

    async def cancel(self, request: Request) -> Answer:
        production = self._production(request)
        if production.is_terminal:
            raise Refusal(409, "PRODUCTION_TERMINAL", f"The production is already {production.status}.")
        await self._sim.cancel(production)
        return Answer(_shown(production), 202)

    async def deliverables(self, request: Request) -> Answer:
        production = self._production(request)
        if not has_deliverables(production):
            raise Refusal(409, "DELIVERABLES_NOT_READY", f"The production is {production.status}.")
        listing = await self._sim.listing(production)
        return Answer({"productionId": production.production_id, "deliverables": listing})

    async def performance(self, request: Request) -> Answer:
        return Answer({"productionId": self._production(request).production_id, "platforms": []})

    async def usage(self, request: Request) -> Answer:
        today = self._sim.budget.requests_on(datetime.now(UTC).date())
        return Answer({"requestsToday": today, "productions": len(self._sim.world.productions)})

    async def subscribe(self, request: Request) -> Answer:
        wanted = await body_of(request, Subscribing)
        if not _may_receive(wanted.endpoint_url):
            raise Refusal(400, "INVALID_REQUEST", "endpointUrl: https only (http towards loopback).")
        if wanted.account_ids and wanted.account_scope_id:
            raise Refusal(400, "INVALID_REQUEST", "accountIds or accountScopeId, not both.")
        if len(self._sim.sender.subscriptions) >= _MOST_SUBSCRIPTIONS:
            raise Refusal(409, "SUBSCRIPTION_LIMIT_REACHED", "There are 100 active subscriptions.")
        accounts = frozenset(wanted.account_ids or filter(None, [wanted.account_scope_id]))
        secret, types = made_webhook_secret(), frozenset(wanted.event_types)
        made = self._sim.sender.subscribe(wanted.endpoint_url, secret, types, accounts)
        return Answer(shown_subscription(made) | {"signingSecret": secret}, 201)

    async def subscriptions(self, request: Request) -> Answer:
        return Answer({"webhooks": [shown_subscription(s) for s in self._sim.sender.subscriptions.values()]})

    async def unsubscribe(self, request: Request) -> Answer:
        if self._sim.sender.subscriptions.pop(request.path_params["webhook_id"], None) is None:
            raise Refusal(404, "NOT_FOUND", "There is no such subscription.")
        return Answer(None, 204)

    async def nowhere(self, request: Request) -> Answer:
        """Calls that JARAI does not have: refused like the others, so that they are in the journal too."""
        raise Refusal(404, "NOT_FOUND", "There is no such call.")

    def _production(self, request: Request) -> Production:
        production = self._sim.world.productions.get(request.path_params["production_id"].lower())
        if production is None:
            raise Refusal(404, "NOT_FOUND", "There is no such production.")
        return production

    def _route(self, method: str, path: str, scope: str, call: Callable[[Request], Awaitable[Answer]]) -> Route:
        async def endpoint(request: Request) -> ASGIApp:
            return await self._guarded(request, scope, call)

        return Route(BASE + path, endpoint, methods=[method])

    async def _guarded(self, request: Request, scope: str, call: Callable[[Request], Awaitable[Answer]]) -> ASGIApp:
        """Key, budget, faults, scope, the call itself. `scope` is "" for a call without a key, "-" for any key."""
        faults: list[str] = []
        headers: dict[str, str] = {}
        try:
            if scope:
                headers = self._admit(request)
            await self._spoil_before(request.url.path, faults)
            if scope not in ("", "-") and scope not in self._sim.settings.scopes:
                code = "INSUFFICIENT_SCOPE" if call == self.trigger else "PERMISSION_DENIED"
                raise Refusal(403, code, f"The key lacks the scope {scope}.")
            response = _rendered(await call(request), _is_sandboxed(request))
        except Refusal as refusal:
            response = refusal.response()
            headers = headers or getattr(refusal, "headers", {})
        if response.status_code < 300 or response.status_code == 429:
            response.headers.update(headers)
        response.headers["X-Correlation-Id"] = request.headers.get("x-correlation-id") or str(uuid.uuid4())
        return self._noted(request, self._spoiled_after(request.url.path, response, faults), faults)

    def _admit(self, request: Request) -> dict[str, str]:
        now = datetime.now(UTC)
        if not self.keys.is_valid(request.headers.get("x-api-key", ""), now):
            raise Refusal(401, "UNAUTHORIZED", "The API key is missing or not valid.")
        admission = self._sim.budget.admit(now)
        if admission.retry_after_seconds is not None:
            raise _Limited(admission.retry_after_seconds, admission.headers())
        return admission.headers()

    async def _spoil_before(self, path: str, struck: list[str]) -> None:
        """Faults of a JARAI that does not get as far as the call."""
        if slow := self._sim.faults.strikes("api_slow", path):
            struck.append("api_slow")
            await asyncio.sleep(slow.value)
        for name, refusal in _FAULTY_ANSWERS.items():
            if fault := self._sim.faults.strikes(name, path):
                struck.append(name)
                raise Refusal(*refusal, int(fault.value) if name == "api_429" else None)

    def _spoiled_after(self, path: str, response: Response, struck: list[str]) -> Response | Dropped:
        """Faults of the way back: the call has taken effect. An answer that is a fault already is left alone."""
        if not _FAULTY_ANSWERS.keys().isdisjoint(struck):
            return response
        if self._sim.faults.strikes("api_drop", path):
            struck.append("api_drop")
            return Dropped()
        if self._sim.faults.strikes("api_garbage", path):
            struck.append("api_garbage")
            kept = {name: value for name, value in response.headers.items() if name != "content-length"}
            return Response(b'{"productionId": "', response.status_code, kept)
        return response

    def _noted(self, request: Request, response: Response | Dropped, faults: list[str]) -> ASGIApp:
        status = response.status_code if isinstance(response, Response) else 0
        now = datetime.now(UTC)
        noted = ApiRequest(now, request.method, request.url.path, status, tuple(faults))
        self._sim.journal.add_api(noted)
        return response


class _Limited(Refusal):
    """Over the budget; carries the headers that say so."""

    def __init__(self, retry_after_seconds: int, headers: dict[str, str]) -> None:
        super().__init__(429, "RATE_LIMIT_EXCEEDED", "The budget is spent.", retry_after_seconds)
        self.headers = headers


_FAULTY_ANSWERS = {
    "api_500": (500, "INTERNAL_ERROR", "Something went wrong."),
    "api_503": (503, "SERVICE_UNAVAILABLE", "The service is not available."),
    "api_429": (429, "RATE_LIMIT_EXCEEDED", "Too many requests."),
    "api_budget_gate": (409, "BUDGET_GATE_1_FAILED", "The account's budget does not allow it."),
    "api_account_inactive": (403, "ACCOUNT_NOT_ACTIVE", "The account is not active."),
    "api_partner_inactive": (403, "PARTNER_NOT_ACTIVE", "The partner is not active."),
}


def shown_subscription(subscription: Subscription) -> dict[str, object]:
    return {
        "webhookId": subscription.webhook_id,
        "endpointUrl": subscription.url,
        "eventTypes": sorted(subscription.event_types or DOCUMENTED_TYPES),
        "accountIds": sorted(subscription.account_ids),
        "isActive": True,
    }


def _shown(production: Production) -> dict[str, object]:
    shown: dict[str, object] = {
        "productionId": production.production_id,
        "accountId": production.account_id,
        "status": production.status,
    }
    if production.status == "Queued":
        shown["expiresAt"] = iso(production.expires_at)
    if production.error is not None:
        shown["errorCode"], shown["errorMessage"] = production.error
    return shown


def _rendered(answer: Answer, sandbox: bool) -> Response:
    if answer.payload is None:
        return Response(status_code=answer.status)
    payload = {**answer.payload, "sandbox": True} if sandbox else answer.payload
    return JSONResponse(payload, answer.status, answer.headers)


def _is_sandboxed(request: Request) -> bool:
    is_test = request.headers.get("x-jarai-test", "").lower() == "true"
    return is_test or request.headers.get("x-api-key", "").startswith("jarai_test_")


def _may_receive(url: str) -> bool:
    """https anywhere, http only towards this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https" and host:
            return True
        return parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False
