"""Inboxes: where everything that is learnt about a production waits to be taken in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis

from service.core import events, observations
from service.core.errors import MalformedEvent
from service.store.deadletters import bury_call, event_key
from service.store.scripts import ACCEPT, OBSERVE, Script, run_all

Verdict = Literal["accepted", "duplicate", "quarantined"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A signed body at the door. `reason` says why it can't be used; then it goes under dead letters."""

    body: bytes
    production_id: str = ""
    sequence_number: int = 0
    reason: str = ""
    event: events.Event | None = None


def arrival(body: bytes) -> Arrival:
    """A signed body as it goes on: to its production's inbox, or under dead letters with the reason."""
    try:
        event = events.parse(body)
    except MalformedEvent as error:
        return Arrival(body, reason=str(error))
    return Arrival(body, str(event.production_id), event.sequence_number, event=event)


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an arrival. `wakes`: its production had nothing to do before and needs a worker now."""

    verdict: Verdict
    wakes: bool = False
    reason: str = ""


def keep(redis: Redis, arrivals: Sequence[Arrival]) -> list[Kept | Exception]:
    """Make every arrival durable in one go, in order; idempotent. What Redis refused is an exception in its place.

    Raises redis.RedisError when the connection fails.
    """
    answers = run_all(redis, [_call(arrival) for arrival in arrivals])
    kept = [_verdict(arrival, answer) for arrival, answer in zip(arrivals, answers, strict=True)]
    conflicts = [place for place, result in enumerate(kept) if result is None]
    if conflicts:
        calls = [bury_call("event", event_key(arrivals[at].body), _CONFLICT, body=arrivals[at].body,
                           production_id=arrivals[at].production_id) for at in conflicts]  # fmt: skip
        for place, answer in zip(conflicts, run_all(redis, calls), strict=True):
            kept[place] = answer if isinstance(answer, Exception) else Kept("quarantined", reason=_CONFLICT)
    return [result for result in kept if result is not None]


def observe(redis: Redis, production_id: str, observation: observations.Written) -> bool:
    """Append an observation; True when the production needs a worker. Twice the same is harmless.

    What comes of work for a production that has been forgotten meanwhile is dropped.
    """
    begins = int(isinstance(observation, observations.Beginning))
    key = observations.result_of(observation)
    return bool(OBSERVE.run(redis, production_id, observations.to_json(observation), begins, key))


_CONFLICT = "another event of this production already had this sequence number"


def _call(arrival: Arrival) -> tuple[Script, tuple[Any, ...]]:
    if arrival.reason:
        return bury_call("event", event_key(arrival.body), arrival.reason, body=arrival.body)
    return ACCEPT, (arrival.production_id, arrival.sequence_number, arrival.body)


def _verdict(arrival: Arrival, answer: object) -> Kept | Exception | None:
    """None: the number is taken by what may be another event."""
    if isinstance(answer, Exception):
        return answer
    if arrival.reason:
        return Kept("quarantined", reason=arrival.reason)
    if isinstance(answer, bytes):
        return Kept("duplicate") if events.same_news(answer, arrival.body) else None
    return Kept("duplicate") if answer == -1 else Kept("accepted", wakes=answer == 1)
