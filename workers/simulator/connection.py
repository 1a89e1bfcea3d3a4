"""The connection behind a request, which ASGI hides: needed to end it without an answer, or in the middle of one."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "simulator.transport"


class Protocol(HttpToolsProtocol):
    """Uvicorn's own, which also puts the transport into the scope as an extension."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: {"transport": self.transport}}


def is_gone(scope: Scope) -> bool:
    return _transport(scope).is_closing()


async def drop(scope: Scope, after_sending: bool = False) -> None:
    """End the connection, at once or when what was written has left; returns when it is gone."""
    transport = _transport(scope)
    if after_sending:
        transport.close()
    else:
        transport.abort()
    await asyncio.sleep(0.01)  # the protocol hears of it in one of the loop's next rounds


class Dropped:
    """Stands where a response would: no byte is sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await drop(scope)


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope["extensions"][_EXTENSION]["transport"]
    return transport
