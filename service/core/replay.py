"""Time travel: what a production's kept events alone make of it, and how that differs from what is stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.core.advance import advance
from service.core.observations import EventArrived
from service.core.production import Production
from service.core.schedule import Intervals
from service.core.view import describe

_FIELDS = ("accountId", "status", "sequenceNumber", "expiresAt", "error", "deliverables")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the events tell otherwise than it is stored."""

    field: str
    stored: Any
    replayed: Any


def from_events(production_id: str, events: Iterable[EventArrived], now: datetime) -> Production:
    """The production as if nothing had ever been learnt but these events, in this order."""
    return advance(Production(production_id, created_at=now), events, now, Intervals()).production


def differences(stored: Production, replayed: Production) -> tuple[Difference, ...]:
    """Where they differ. What polls and downloads brought is not in the events and shows here too."""
    was, would_be = _compared(stored), _compared(replayed)
    return tuple(Difference(name, was[name], would_be[name]) for name in _FIELDS if was[name] != would_be[name])


def _compared(production: Production) -> dict[str, Any]:
    shown = describe(production)
    return shown | {"deliverables": sorted({f"{one['type']} {one['id']}" for one in shown["deliverables"]})}
