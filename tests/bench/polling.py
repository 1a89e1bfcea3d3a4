"""A budget of requests against lost webhooks, in virtual time: the product's own rules, no process and no Redis.

JARAI's side keeps its limits to the letter (CONTRACT [docs]) and answers 429 beyond them. Beside the product runs what
JARAI's guide recommends: no webhooks, `Queued` every 10 s, everything else every 30 s.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from statistics import median
from typing import Any, Literal
from uuid import UUID

from service.core import events
from service.core.advance import advance
from service.core.budget import (
    WINDOW_SECONDS,
    Answer,
    Budget,
    Limits,
    after_answer,
    after_taking,
    day,
    spread_seconds,
    sustainable_seconds,
    until_midnight,
    wait_seconds,
)
from service.core.deliverables import read_list
from service.core.experience import Experience
from service.core.observations import (
    MANIFEST,
    DeliverablesAnswered,
    DownloadStored,
    EventArrived,
    ManifestWritten,
    Observation,
    OperatorAsked,
    StatusAnswered,
)
from service.core.production import LIFE, TERMINAL, WITH_FILES, Production
from service.core.radar import account
from service.core.schedule import Intervals, held_until

MIDNIGHT = datetime(2026, 4, 6, tzinfo=UTC).timestamp()
ACCOUNT = str(UUID(int=7))
OPENS, CLOSES = 8 * 3600.0, 18 * 3600.0  # productions are asked for in working hours
STEPS = 15
_LATENCY_SECONDS = 0.2
_GUIDE_SECONDS = {"Queued": 10.0}
_GUIDE_OTHERWISE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Tier:
    name: str
    per_minute: int
    per_day: int | None


FREE, STANDARD, ENTERPRISE = Tier("Free", 10, 100), Tier("Standard", 60, 2000), Tier("Enterprise", 300, None)


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened at JARAI, `at` Unix seconds."""

    at: float
    event_type: str
    status: str


@dataclass(slots=True)
class Life:
    """One production at JARAI, and when its receiver knew of each status."""

    identity: str
    moments: list[Moment]
    known_at: dict[str, float] = field(default_factory=dict)

    def status(self, now: float) -> str:
        return next((one.status for one in reversed(self.moments) if one.at <= now), "Queued")

    @property
    def began_at(self) -> float:
        return self.moments[0].at

    def knows(self, status: str | None, now: float) -> None:
        for earlier in LIFE[: LIFE.index(status) + 1] if status in LIFE else ():
            self.known_at.setdefault(earlier, now)

    def delays(self) -> Iterator[float]:
        """Of each status that was entered, how long its receiver did not know."""
        entered: dict[str, float] = {}
        for one in self.moments:
            if one.event_type:  # nothing announces the others
                entered.setdefault(one.status, one.at)
        for status, at in entered.items():
            if status in self.known_at:
                yield max(0.0, self.known_at[status] - at)


def lives(dice: Random, days: int, a_day: int) -> list[Life]:
    """A pipeline of fifteen steps of half a minute to two, an approval of minutes to hours, a publication."""
    made = []
    for number in range(days * a_day):
        at = MIDNIGHT + number // a_day * 86400 + dice.uniform(OPENS, CLOSES)
        moments = [Moment(at, "production.queued", "Queued")]
        at += dice.uniform(5, 120)
        for _ in range(STEPS):
            at += dice.uniform(30, 120)
            moments.append(Moment(at, "production.step.complete", "Producing"))
        moments.append(Moment(at + 1, "deliverable.ready", "AwaitingApproval"))
        at += min(3 * 3600, dice.lognormvariate(6.5, 1.2))
        moments.append(Moment(at, "", "Distributing"))  # the names of three event types are [open]: not announced
        moments.append(Moment(at + dice.uniform(20, 180), "production.published", "Published"))
        made.append(Life(str(UUID(int=number + 1)), moments))
    return made


@dataclass
class Jarai:
    """The limits, to the letter."""

    tier: Tier
    recent: deque[float] = field(default_factory=deque)
    by_day: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    def take(self, now: float) -> Answer:
        while self.recent and self.recent[0] <= now - 60:
            self.recent.popleft()
        if self.tier.per_day is not None and self.by_day[day(now)] >= self.tier.per_day:
            self.refused += 1
            return Answer(429, retry_after_seconds=until_midnight(now))
        if len(self.recent) >= self.tier.per_minute:
            self.refused += 1
            return Answer(429, retry_after_seconds=self.recent[0] + 60 - now)
        self.recent.append(now)
        self.by_day[day(now)] += 1
        left = self.tier.per_minute - len(self.recent)
        return Answer(200, limit=self.tier.per_minute, remaining=left, reset_at=self.recent[0] + 60)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`delays`: of every status of every production, how long it was not known, in seconds."""

    requests: int
    busiest_day: int
    refused: int
    settled: int
    delays: tuple[float, ...]

    @property
    def noticed_late(self) -> list[float]:
        return [one for one in self.delays if one > 5] or [0.0]


@dataclass
class Receiver:
    """The product's rules around a virtual clock; any number of pollers share one budget."""

    tier: Tier
    loss: float
    dice: Random
    pollers: int = 1
    jarai: Jarai = field(init=False)
    budget: Budget = field(default_factory=Budget)
    sent: deque[float] = field(default_factory=deque)
    in_flight: int = 0
    known: dict[str, Production] = field(default_factory=dict)
    told: dict[str, list[events.Event]] = field(default_factory=dict)
    experience: Experience = field(default_factory=Experience)
    accounted: set[str] = field(default_factory=set)
    due: dict[str, float] = field(default_factory=dict)
    looks_at: float = 0.0

    def __post_init__(self) -> None:
        self.jarai = Jarai(self.tier)

    def run(self, made: list[Life]) -> Outcome:
        order = count()
        turns: list[tuple[float, int, Literal["event", "look", "answer"], Any]] = []
        for life in made:
            for number, moment in enumerate((one for one in life.moments if one.event_type), start=1):
                if self.dice.random() >= self.loss:
                    arrives = moment.at + self.dice.uniform(0.1, 2)
                    heapq.heappush(turns, (arrives, next(order), "event", (life, number, moment)))
            heapq.heappush(turns, (life.began_at, next(order), "event", (life, 0, None)))
        by_id = {life.identity: life for life in made}
        end = max(life.moments[-1].at for life in made) + 3 * 86400
        while turns:
            now, _, what, payload = heapq.heappop(turns)
            if now > end:
                break
            if what == "event":
                life, number, moment = payload
                self._take_in(life, self._observation(life, number, moment, now), now)
            elif what == "answer":
                life, answer, observation = payload
                self.in_flight -= 1
                self.budget = after_answer(self.budget, answer, self.in_flight, now)
                if answer.status == 200:
                    self._take_in(life, observation, now)
                else:
                    self.due[life.identity] = now
            while (next_at := self._ask(by_id, turns, order, now)) is not None and next_at <= now:
                pass
            if next_at is not None and not now < self.looks_at <= next_at:
                self.looks_at = next_at
                heapq.heappush(turns, (next_at, next(order), "look", None))
        settled = sum(one.complete for one in self.known.values())
        delays = tuple(delay for life in made for delay in life.delays())
        spent = self.jarai.by_day
        return Outcome(sum(spent.values()), max(spent.values(), default=0), self.jarai.refused, settled, delays)

    def _observation(self, life: Life, number: int, moment: Moment | None, now: float) -> Observation:
        if moment is None:
            return OperatorAsked(_at(now), "track", account_id=ACCOUNT)
        data: dict[str, Any] = {"status": moment.status}
        if moment.event_type == "deliverable.ready":
            data = {"deliverables": _files(life)}
        elif moment.status == "Queued":
            data["expiresAt"] = _at(moment.at + 600).isoformat()
        body = {
            "eventId": str(UUID(int=self.dice.getrandbits(128))), "eventType": moment.event_type,
            "productionId": life.identity, "accountId": ACCOUNT, "sequenceNumber": number,
            "timestamp": _at(moment.at).isoformat(), "data": data,
        }  # fmt: skip
        event = events.parse(json.dumps(body).encode())
        self.told.setdefault(life.identity, []).append(event)
        return EventArrived(event, _at(now))

    def _take_in(self, life: Life, observation: Observation, now: float) -> None:
        sustainable = sustainable_seconds(self.budget, Limits(), max(1, len(self.due)), now)
        intervals = Intervals(experience=self.experience, sustainable=timedelta(seconds=sustainable))
        known = self.known.get(life.identity) or Production(life.identity, created_at=_at(now))
        known = advance(known, [observation], _at(now), intervals).production
        hands: list[Observation] = [
            ManifestWritten(_at(now), known.manifest_revision) if key == MANIFEST
            else DownloadStored(_at(now), key, 1000, "ab" * 32, 1.0)
            for key in known.due_downloads
        ]  # fmt: skip
        if hands:
            known = advance(known, hands, _at(now), intervals).production
        self.known[life.identity] = known
        life.knows("AwaitingApproval" if known.deliverables else known.status, now)
        life.knows(known.status, now)
        due = known.due_to_ask_at
        if due is None:
            self.due.pop(life.identity, None)
        else:
            self.due[life.identity] = due.timestamp()
        if known.complete and life.identity not in self.accounted:
            self.accounted.add(life.identity)
            found = account(known, self.told.get(life.identity, []), self.experience)
            self.experience = self.experience.after(found.gaps, found.preceded)

    def _ask(self, lives: dict[str, Life], turns: list[Any], order: Iterator[int], now: float) -> float | None:
        """Ask about what is due and tells most, as far as the budget goes; when to look again."""
        if not self.due or self.in_flight >= self.pollers:
            return None  # an event or an answer wakes it
        ready = [identity for identity, at in self.due.items() if at <= now]
        if not ready:
            return min(self.due.values())
        while self.sent and self.sent[0] < now - WINDOW_SECONDS:
            self.sent.popleft()
        wait = wait_seconds(self.budget, Limits(), list(self.sent), now, in_flight=self.in_flight)
        if wait > 0:
            return now + max(wait, 0.05)
        identity = min(ready, key=lambda one: (not self.known[one].tells_much, self.due[one]))
        one = self.known[identity]
        spread = timedelta(seconds=spread_seconds(self.budget, Limits(), len(self.due), now))
        held = held_until(one, spread)
        if held is not None and held > _at(now):
            self.due[identity] = held.timestamp()
            return now
        self.budget = after_taking(self.budget, now)
        self.sent.append(now)
        self.in_flight += 1
        del self.due[identity]
        life = lives[identity]
        answer = (life, self.jarai.take(now), self._answer(one, life, now))
        heapq.heappush(turns, (now + _LATENCY_SECONDS, next(order), "answer", answer))
        return now

    def _answer(self, one: Production, life: Life, now: float) -> Observation:
        status = life.status(now)
        as_of = _at(now).replace(microsecond=0)
        if one.list_at is not None and one.list_at <= _at(now) and status in WITH_FILES:
            listed = read_list({"deliverables": _files(life)}, _at(now))
            return DeliverablesAnswered(_at(now), one.sequence, listed, as_of, one.terminal)
        return StatusAnswered(_at(now), as_of, one.sequence, status, ACCOUNT)


@dataclass
class Guide:
    """Polling by the recommended intervals, and one list of deliverables; obeys a 429, and knows no webhooks."""

    tier: Tier

    def run(self, made: list[Life]) -> Outcome:
        jarai, order = Jarai(self.tier), count()
        turns = [(life.began_at, next(order), life) for life in made]
        heapq.heapify(turns)
        settled = 0
        end = max(life.moments[-1].at for life in made) + 3 * 86400
        while turns:
            now, _, life = heapq.heappop(turns)
            if now > end:
                break
            answer = jarai.take(now)
            if answer.retry_after_seconds is not None:
                heapq.heappush(turns, (now + max(1.0, answer.retry_after_seconds), next(order), life))
                continue
            status = life.status(now)
            life.knows(status, now)
            if status not in TERMINAL:
                heapq.heappush(turns, (now + _GUIDE_SECONDS.get(status, _GUIDE_OTHERWISE_SECONDS), next(order), life))
            else:
                jarai.take(now)  # the list
                settled += 1
        delays = tuple(delay for life in made for delay in life.delays())
        spent = jarai.by_day
        return Outcome(sum(spent.values()), max(spent.values(), default=0), jarai.refused, settled, delays)


def _files(life: Life) -> list[dict[str, str]]:
    return [{"id": "v", "type": "Video", "sasUrl": f"https://a.blob.core.windows.net/x/{life.identity}.mp4?sig=1"}]


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class Row:
    tier: Tier
    a_day: int
    loss: float
    days: int


ROWS = [
    *(Row(FREE, 3, loss, 60) for loss in (0.0, 0.05, 0.3, 1.0)),
    *(Row(STANDARD, 40, loss, 5) for loss in (0.0, 0.05, 0.3, 1.0)),
    *(Row(ENTERPRISE, 500, loss, 1) for loss in (0.0, 0.3)),
]
HEAD = ("tier", "a day", "lost", "requests", "noticed late by", "429", "guide: requests", "known late by", "429")


def simulate(row: Row, seed: int = 1, pollers: int = 1) -> tuple[Outcome, Outcome]:
    """What the product spends and how late it is, and the same of the guide, for the same productions."""
    made = lives(Random(seed), row.days, row.a_day)
    ours = Receiver(row.tier, row.loss, Random(seed + 1), pollers).run(made)
    guide = Guide(row.tier).run([replace(life, known_at={}) for life in made])
    return ours, guide


def table() -> Iterator[tuple[str, ...]]:
    """The rows of the simulation as text."""
    for row in ROWS:
        total = row.days * row.a_day
        ours, guide = simulate(row)
        yield (
            row.tier.name, str(row.a_day), f"{100 * row.loss:.0f} %",
            f"{ours.requests / total:.1f}{'' if ours.settled == total else f' ({total - ours.settled} unsettled)'}",
            f"{_span(median(ours.noticed_late))} / {_span(max(ours.delays))}", str(ours.refused),
            f"{guide.requests / total:.1f}{'' if guide.settled == total else f' ({total - guide.settled} unsettled)'}",
            f"{_span(median(guide.noticed_late))} / {_span(max(guide.delays))}", str(guide.refused),
        )  # fmt: skip


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def main() -> None:
    """Print the table as Markdown, row by row."""
    print("Polling in virtual time; requests for each production; late: half of the times / at worst")
    print(f"| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    for cells in table():
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
