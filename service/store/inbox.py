"""Inboxes: where everything that is learnt about a production waits to be taken in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ResponseError

from service import jobs
from service.core import events, observations
from service.core.errors import MalformedEvent
from service.store.deadletters import event_letter
from service.store.scripts import ACCEPT, BURY, OBSERVE

Verdict = Literal["accepted", "duplicate", "quarantined"]


class Arrival(NamedTuple):
    """A signed body at the door. Without an envelope `reason` says why it can't be used: it goes under dead letters."""

    body: bytes
    envelope: events.Envelope | None
    reason: str = ""


def arrival(body: bytes) -> Arrival:
    """A signed body as it goes on: to its production's inbox, or under dead letters with the reason."""
    try:
        return Arrival(body, events.parse_envelope(body))
    except MalformedEvent as error:
        return Arrival(body, None, str(error))


class Kept(NamedTuple):
    """What became of an arrival. `wakes`: its production had nothing to do before, and no worker is on its way yet."""

    verdict: Verdict
    wakes: bool = False
    reason: str = ""


async def keep(redis: AsyncRedis, arrivals: Sequence[Arrival]) -> list[Kept | Exception]:
    """Make every arrival durable in one go; idempotent. What Redis refused is an exception in its place.

    Raises redis.RedisError when the connection fails.
    """
    usable = [one for one in arrivals if one.envelope is not None]
    answers = iter(await _accept(redis, usable) if usable else ())
    kept = [
        Kept("quarantined", reason=one.reason) if one.envelope is None else _verdict(one, next(answers))
        for one in arrivals
    ]
    aside = {
        place: _letter(arrivals[place], one.reason)
        for place, one in enumerate(kept)
        if isinstance(one, Kept) and one.verdict == "quarantined"
    }
    if aside:
        try:
            await BURY.run_async(redis, *chain.from_iterable(aside.values()))
        except ResponseError as error:
            kept = [error if place in aside else one for place, one in enumerate(kept)]
    return kept


def keep_after_all(redis: Redis, body: bytes) -> bool:
    """What lay under dead letters goes to its production's inbox; False when it still can't be used."""
    one = arrival(body)
    if one.envelope is None:
        return False
    kept = _verdict(one, ACCEPT.run(redis, *_told([one]))[0])
    if isinstance(kept, Exception):
        raise kept
    return kept.verdict != "quarantined"


def observe(redis: Redis, production_id: str, observation: observations.Written) -> bool:
    """Append an observation; True when the production needs a worker. Twice the same is harmless.

    What comes of work for a production that has been forgotten meanwhile is dropped.
    """
    begins = int(isinstance(observation, observations.Beginning))
    key = observations.result_of(observation)
    return bool(OBSERVE.run(redis, production_id, observations.to_json(observation), begins, key))


_CONFLICT = Kept("quarantined", reason="another event of this production already had this sequence number")
_KEPT = {1: Kept("accepted", wakes=True), 0: Kept("accepted"), -1: Kept("duplicate")}


async def _accept(redis: AsyncRedis, arrivals: Sequence[Arrival]) -> Sequence[Any]:
    """What the script says of each, or an exception. One call for all: it costs hardly more than for one."""
    try:
        answers: Sequence[Any] = await ACCEPT.run_async(redis, *_told(arrivals))
    except ResponseError as error:
        return [error] * len(arrivals)
    return answers


def _told(arrivals: Sequence[Arrival]) -> list[Any]:
    told: list[Any] = [jobs.MOST_BELLS]
    for body, envelope, _ in arrivals:
        assert envelope is not None
        told.append(b"%s %d %s" % (envelope.production_id.encode(), envelope.sequence_number, body))
    return told


def _verdict(arrival: Arrival, answer: Any) -> Kept | Exception:
    if isinstance(answer, Exception):
        return answer
    if isinstance(answer, bytes):  # the number is taken by what may be another event
        return _KEPT[-1] if events.same_news(answer, arrival.body) else _CONFLICT
    return _KEPT[answer]


def _letter(arrival: Arrival, reason: str) -> list[Any]:
    production_id = "" if arrival.envelope is None else arrival.envelope.production_id
    return event_letter(arrival.body, reason, production_id)
