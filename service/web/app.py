"""The application: routes and what they are made of. Nothing is decided here."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hmac
import inspect
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import uvicorn
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service import log
from service.core.errors import ReceiverError, UnreadableState
from service.runtime import Runtime, renewed
from service.settings import Watcher
from service.web import deadletters, health, openapi, partner, productions
from service.web.connections import Connection, places
from service.web.hearing import Hearing
from service.web.intake import Intake
from service.web.webhooks import WebhookEndpoint

_MOST_CONNECTIONS = 4096
_DRAIN_SECONDS = 8
_WATCH_SECONDS = 2.0
_BACKLOG = 2048
_RECEIVE_BUFFER_BYTES = 32 * 1024
_OBJECTS_BETWEEN_COLLECTIONS = 50_000
WEBHOOKS = "/webhooks/jarai"
_CODES = {400: "INVALID_REQUEST", 401: "UNAUTHORIZED", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 409: "CONFLICT",
          413: "PAYLOAD_TOO_LARGE", 503: "SERVICE_UNAVAILABLE"}  # fmt: skip

Endpoint = Callable[[Request], Any]


def create(runtime: Runtime) -> Starlette:
    """The application behind the door. Its intake runs as long as its lifespan."""
    settings = runtime.settings
    redis = runtime.intake_async_redis()
    intake, hearing = Intake(redis, runtime.intake_redis), Hearing(redis)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(_watch(app, webhook))
        yield
        watching.cancel()
        await hearing.close()
        await intake.stop()
        await redis.aclose()
        log.get()("service.stopped", process="web")

    webhook = WebhookEndpoint(intake, hearing, settings.webhook_keys, settings.max_body_bytes)
    admin = functools.partial(_guarded, settings.admin_token)
    app = Starlette(
        routes=[
            Route(WEBHOOKS, webhook, methods=["POST"]),
            Route("/healthz", health.healthz),
            Route("/readyz", health.readyz),
            Route("/metrics", admin(health.metrics)),
            Route("/openapi.json", admin(openapi.show)),
            _route("/productions", GET=admin(productions.list_productions), POST=admin(partner.trigger)),
            _route("/productions/{id}", GET=admin(productions.show), DELETE=admin(partner.cancel)),
            Route("/productions/{id}/timeline", admin(productions.timeline)),
            Route("/productions/{id}/track", admin(productions.track), methods=["POST"]),
            Route("/productions/{id}/refresh", admin(productions.refresh), methods=["POST"]),
            Route("/deadletters", admin(deadletters.list_deadletters)),
            Route("/deadletters/{id}/retry", admin(deadletters.retry), methods=["POST"]),
            Route("/deadletters/{id}", admin(deadletters.discard), methods=["DELETE"]),
        ],
        exception_handlers={
            HTTPException: _http_error,  # type: ignore[dict-item]
            RedisError: _store_error,
            UnreadableState: _unreadable,
            **dict.fromkeys(partner.ERRORS, partner.refused),
            Exception: _defect,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # the target would be built from a Host header that anybody may write
    app.state.settings, app.state.intake = settings, intake
    app.state.redis, app.state.intake_redis = runtime.redis, runtime.intake_redis
    app.state.partner_limiter = anyio.CapacityLimiter(partner.AT_ONCE)
    app.state.runtime = runtime  # for who asks JARAI; its HTTP client is loaded by the first who does
    app.state.webhook = webhook
    return app


class Door:
    """Webhooks go straight to their endpoint, a tenth of their whole price cheaper than through the application."""

    def __init__(self, app: Starlette) -> None:
        self._app, self._webhook = app, app.state.webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == WEBHOOKS and scope["method"] == "POST":
            try:
                await self._webhook(scope, receive, send)
            except Exception as error:
                await (await _defect(Request(scope), error))(scope, receive, send)
                raise  # the server says what it was
        else:
            await self._app(scope, receive, send)


async def _watch(app: Starlette, webhook: WebhookEndpoint) -> None:
    """Go by the secrets of a `.env` file that changes, so that they can be rotated without a restart."""
    watcher = Watcher()
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        found = renewed(watcher, app.state.settings, "web")
        if found is not None:
            app.state.settings, app.state.runtime = found, Runtime(found)
            webhook.use(found.webhook_keys)


def serve(runtime: Runtime) -> None:
    """Listen until SIGTERM; requests that are in flight get their answer. Raises ReceiverError when it can't listen."""
    config = uvicorn.Config(
        Door(create(runtime)),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=Connection,
        ws="none",
        limit_concurrency=places(_MOST_CONNECTIONS),
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    listening = listen(runtime.settings.host, runtime.settings.port)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises it again when it has drained: that is a good end
        signal.signal(number, lambda *_: None)
    # What is here now stays, so no collection looks at it again; an event is many objects and no garbage in circles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
    uvicorn.Server(config).run([listening])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ReceiverError with what is wrong with HOST or PORT."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        # Of each connection: bounds what arrives at once, and what the kernel keeps while nobody reads.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        return listening
    except OSError as error:
        raise ReceiverError(f"can't listen on HOST {host}, PORT {port}: {error.strerror or error}") from None


def _route(path: str, **endpoints: Callable[[Request], Awaitable[Response]]) -> Route:
    """One place with an endpoint for each method, so that a 405 tells all of them."""

    async def answer(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, answer, methods=list(endpoints))


def _guarded(token: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint for whoever brings the admin token; without one in the settings there is no such place."""

    async def answer(request: Request) -> Response:
        if not token:
            raise HTTPException(404, "not found")
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "the bearer token is missing or wrong", {"WWW-Authenticate": "Bearer"})
        if inspect.iscoroutinefunction(endpoint):
            response: Response = await endpoint(request)
        else:
            response = await run_in_threadpool(endpoint, request)
        return response

    return answer


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    body = {"error": _CODES.get(error.status_code, "ERROR"), "message": error.detail}
    return JSONResponse(body, error.status_code, headers=error.headers)


async def _store_error(request: Request, error: Exception) -> JSONResponse:
    log.get()("store.unavailable", error=f"{type(error).__name__}: {error}")
    body = {"error": "SERVICE_UNAVAILABLE", "message": "Redis does not answer"}
    return JSONResponse(body, 503, headers={"Retry-After": "2"})


async def _unreadable(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "STATE_UNREADABLE", "message": str(error)}, 503, headers={"Retry-After": "60"})


async def _defect(request: Request, error: Exception) -> JSONResponse:
    """Of ours. What it was is in the log, and only there."""
    body = {"error": "INTERNAL_ERROR", "message": "a defect; the log says which"}
    return JSONResponse(body, 500, headers={"Connection": "close"})  # which uvicorn does after a defect, unsaid
