"""`jarai-receiver check`: is this deployment sound? One line for each thing, and what to do where it is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import urllib3
from redis import Redis
from redis.exceptions import RedisError
from urllib3.util import Timeout

from service import outgoing, pacing, partner
from service.core import onboarding, partner_api, subscriptions
from service.core.budget import per_day
from service.core.errors import JaraiError, JaraiRefused, NoRequestLeft, ReceiverError
from service.core.partner_api import Request, Response, accounts_request
from service.core.signature import fingerprint
from service.core.subscriptions import Subscription
from service.core.view import instant
from service.core.why import span
from service.jarai import USER_AGENT
from service.runtime import Runtime
from service.store import deadletters, deployment, due, heard, notices, productions, triggers
from service.store.connection import safety_problems
from workers.storage import open_storage

Verdict = Literal["ok", "warning", "broken"]
_LEAST_FREE_BYTES = 1024**3
_OLDEST_REDIS = (6, 2)
_SLOWEST_REDIS_MS = 50.0
_SHORTEST_KEY_BYTES = 16
_LONGEST_LOOK_SECONDS = 5.0
_TIERS = {10: "tier Free: ", 60: "tier Standard: ", 300: "tier Enterprise: "}  # CONTRACT [docs]
_NOBODYS = "00000000-0000-4000-8000-000000000000"  # a production that there is none of
Read = TypeVar("Read")
_LARGEST_SKEW_SECONDS = 60.0
_LATEST_NOTICE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at. `broken`: something would be lost or not work."""

    part: str
    verdict: Verdict
    says: str


def examine(runtime: Runtime) -> Iterator[Line]:
    """Look at everything. Costs four requests of the budget at JARAI."""
    yield from _settings(runtime)
    redis_answers = False
    for line in _redis(runtime):
        redis_answers |= line.verdict != "broken" and line.part == "redis"
        yield line
    yield from _storage(runtime)
    yield from _jarai(runtime, redis_answers)
    if redis_answers:
        yield from _heard(runtime)
        yield from _processes(runtime)
        yield from _work(runtime)


def _settings(runtime: Runtime) -> Iterator[Line]:
    settings = runtime.settings
    if settings.webhook_secrets:
        short = [fingerprint(key) for key in settings.webhook_keys if len(key) < _SHORTEST_KEY_BYTES]
        if short:
            yield Line("secrets", "warning", f"secret {', '.join(short)} is shorter than any of JARAI's: cut off?")
        else:
            yield Line("secrets", "ok", f"{len(settings.webhook_secrets)} signing secret(s) in JARAI_WEBHOOK_SECRETS")
    else:
        yield Line(
            "secrets",
            "broken",
            "JARAI_WEBHOOK_SECRETS is not set: every webhook would be refused; "
            "`webhooks register URL --save` brings one",
        )
    if settings.admin_token:
        yield Line("admin", "ok", "ADMIN_TOKEN is set")
    else:
        yield Line("admin", "warning", "ADMIN_TOKEN is not set: /productions, /deadletters and /metrics answer 404")


def _redis(runtime: Runtime) -> Iterator[Line]:
    try:
        latency = min(_ping_ms(runtime.redis) for _ in range(3))  # who is too far away is so every time
        problems = safety_problems(runtime.redis)
    except (RedisError, ReceiverError) as error:
        yield Line("redis", "broken", f"does not answer: {error}; start it, or set REDIS_URL (`up` brings its own)")
        return
    info: Any = runtime.redis.info("server")
    version = str(info.get("valkey_version") or info.get("redis_version", "0"))
    old = tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST_REDIS
    slow = latency > _SLOWEST_REDIS_MS
    advice = ": 6.2 is the oldest that works" if old else ": too far away for an answer in time" if slow else ""
    yield Line("redis", "broken" if old else "warning" if slow else "ok",
               f"{version} answers in {latency:.1f} ms{advice}")  # fmt: skip
    for problem in problems:
        yield Line("durability", "broken", f"Redis may lose accepted events: {problem}")
    if not problems:
        yield Line("durability", "ok", "append-only file on, nothing is evicted")


def _ping_ms(redis: Redis) -> float:
    started = time.monotonic()
    redis.ping()
    return (time.monotonic() - started) * 1000


def _storage(runtime: Runtime) -> Iterator[Line]:
    try:
        storage = open_storage(runtime.settings)
        free_bytes = storage.probe()
    except ReceiverError as error:
        yield Line("storage", "broken", f"{runtime.settings.storage_url}: {error}")
        return
    verdict: Verdict = "ok" if free_bytes is None or free_bytes >= _LEAST_FREE_BYTES else "warning"
    room = "" if free_bytes is None else f", {free_bytes / 1024**3:.1f} GiB free"
    yield Line("storage", verdict, f"{storage.where} takes files{room}")


def _jarai(runtime: Runtime, redis_answers: bool) -> Iterator[Line]:
    """What JARAI says of the key, its scopes, its subscriptions, and of the time."""
    if not runtime.settings.jarai_api_key:
        yield Line(
            "api key",
            "warning",
            "JARAI_API_KEY is not set: nothing is polled, lost webhooks go unnoticed; "
            "`partners verify TOKEN --save` brings one",
        )
        return
    asked = _Asked(runtime)
    try:
        found = asked.ask(accounts_request(), onboarding.read_account_list)
    except (JaraiError, NoRequestLeft) as error:
        yield _refused("api key", error)
        if redis_answers:
            yield _budget(runtime)
        return
    names = "no account yet" if not found else f"{len(found)} account(s)"
    yield Line("api key", "ok", f"accepted by {runtime.settings.jarai_api_url}, {names}")
    yield from _clock(asked.last)
    try:
        subscribed = asked.ask(subscriptions.list_request(), subscriptions.read_subscriptions)
    except (JaraiError, NoRequestLeft) as error:
        yield _refused("subscription", error)
    else:
        yield from _subscriptions(runtime, subscribed)
    yield _scopes(asked)
    if redis_answers:
        yield _budget(runtime)


@dataclass
class _Asked:
    """Asks JARAI, and remembers the last answer and which scopes were missing."""

    runtime: Runtime
    last: Response | None = None
    missing: list[str] = field(default_factory=list)

    def ask(self, request: Request, read: Callable[[Response], Read]) -> Read:
        def remember(response: Response) -> Read:
            self.last = response
            return read(response)

        try:
            return partner.ask(self.runtime, request, remember)
        except JaraiRefused as error:
            if error.status == 403 and request.scope:
                self.missing.append(request.scope)
            raise


def _refused(part: str, error: JaraiError | NoRequestLeft) -> Line:
    if isinstance(error, NoRequestLeft):
        return Line(part, "warning", f"not tried: {error}")
    return Line(part, "broken" if part == "api key" else "warning", error.sentence)


def _scopes(asked: _Asked) -> Line:
    """Told by questions about a production that there is none of: 404 is an answer that the scope allows."""
    for request in (partner_api.status_request(_NOBODYS), partner_api.deliverables_request(_NOBODYS)):
        try:
            asked.ask(request, partner_api.read_done)
        except NoRequestLeft as error:
            return Line("scopes", "warning", f"not tried: {error}")
        except JaraiRefused:
            continue
        except JaraiError as error:
            return Line("scopes", "warning", f"not known: {error.sentence}")
    if asked.missing:
        return Line("scopes", "broken", f"the key lacks {', '.join(asked.missing)}: ask JARAI for one that has it")
    return Line("scopes", "ok", "the key may read; whether it may trigger (productions:write) shows when it does")


def _budget(runtime: Runtime) -> Line:
    """What the tier allows, what is left, and what that means for a webhook that gets lost."""
    pace = pacing.read(runtime.redis, runtime.settings)
    watched = due.watched(runtime.redis)
    most, left = per_day(pace.budget, pace.limits, pace.now), pace.left_today
    tier = _TIERS.get(pace.budget.limit or 0, "")
    a_minute = "an unknown number of" if pace.budget.limit is None else f"{tier}{pace.budget.limit}"
    a_day = "" if most is None else f", {most} a day, {left} left today for polling"
    now, later = pace.noticed_within(watched), pace.at_this_rate().noticed_within(watched)
    verdict: Verdict = "warning" if left == 0 else "ok"
    then = f", within {span(later)} tonight at this rate" if later > now else ""
    lost = f"a webhook that gets lost is noticed within {span(now)}{then}"
    return Line("budget", verdict, f"{a_minute} requests a minute{a_day}; {lost}")


def _subscriptions(runtime: Runtime, found: Sequence[Subscription]) -> Iterator[Line]:
    here = [one for one in found if one.active and urlsplit(one.url).path == subscriptions.PATH]
    if not here:
        other = f"{len(found)} lead elsewhere: `webhooks list`" if found else "there is none"
        yield Line(
            "subscription", "broken", f"{other}; `webhooks register https://your.host{subscriptions.PATH} --save`"
        )
        return
    for url in dict.fromkeys(one.url for one in here):
        mine = [one for one in here if one.url == url]
        types = {each for one in mine for each in one.event_types or subscriptions.EVENT_TYPES}
        lacks = sorted(set(subscriptions.EVENT_TYPES) - types)
        missing = f"lacks {', '.join(lacks)}, which cost polls: `webhooks register` another" if lacks else "all events"
        several = f" by {len(mine)} subscriptions" if len(mine) > 1 else ""
        yield Line("subscription", "warning" if lacks else "ok", f"{url}: {missing}{several}")
        yield _reachable(url)


def _reachable(url: str) -> Line:
    """Whether the address leads to a receiver: ours answers a GET with 405 in its own words."""
    pool = outgoing.open_pool(Timeout(connect=3, read=3), {"User-Agent": USER_AGENT})
    try:
        with outgoing.within(_LONGEST_LOOK_SECONDS):
            answer = pool.request("GET", url, redirect=False, preload_content=False)
            body = answer.read1(4096)
            answer.close()
    except urllib3.exceptions.HTTPError as error:
        seen = "from here" if isinstance(error, urllib3.exceptions.NewConnectionError) else f"({type(error).__name__})"
        return Line("address", "warning", f"{url} does not answer {seen}: look at DNS, the proxy and its certificate")
    if answer.status == 405 and b"METHOD_NOT_ALLOWED" in body:
        return Line("address", "ok", f"{url} leads to a jarai-receiver")
    return Line("address", "warning", f"{url} answers {answer.status}, as no jarai-receiver does: look at the proxy")


def _clock(response: Response | None) -> Iterator[Line]:
    theirs = None if response is None else partner_api.date(response)
    if theirs is None:
        return
    skew = (datetime.now(UTC) - theirs).total_seconds()
    verdict: Verdict = "ok" if abs(skew) <= _LARGEST_SKEW_SECONDS else "warning"
    advice = "" if verdict == "ok" else ": set up NTP on this machine"
    yield Line("clock", verdict, f"{skew:+.0f} s against JARAI's{advice}")


def _heard(runtime: Runtime) -> Iterator[Line]:
    """When each secret was last seen at work."""
    known, now = heard.read(runtime.redis), productions.now(runtime.redis)
    keys = [fingerprint(key) for key in runtime.settings.webhook_keys]
    for key in keys:
        last = known.by_key.get(key)
        said = "no webhook was signed with it yet" if last is None else f"last webhook {span(now - last)} ago"
        yield Line("webhooks", "ok", f"secret {key}: {said}")
    refused = known.refused_at
    if refused is not None and (known.last_at is None or refused > known.last_at):
        likely = "JARAI_WEBHOOK_SECRETS may lack the subscription's"
        yield Line("webhooks", "warning", f"one was refused {span(now - refused)} ago, none accepted since: {likely}")
    watched = [one for one in due.watched(runtime.redis) if not one.terminal]
    if watched and known.last_at is None:
        yield Line("webhooks", "warning", f"{len(watched)} production(s) are under way, and none has come for any")


def _processes(runtime: Runtime) -> Iterator[Line]:
    alive = deployment.alive(runtime.redis)
    wanted = ["advance", "download", *(["notify"] if runtime.settings.notify_url else [])]
    for kind, start in (*((queue, f"worker --queues {queue}") for queue in wanted), ("poller", "poller")):
        if not alive[kind]:
            yield Line("processes", "warning", f"no {kind} is running: `jarai-receiver {start}`")
    told = ", ".join(f"{alive[kind]} {kind}" for kind in (*wanted, "poller") if alive[kind])
    if told:
        yield Line("processes", "ok", f"running: {told}")


def _work(runtime: Runtime) -> Iterator[Line]:
    waiting = due.sweep(runtime.redis)
    oldest = due.oldest_waiting(runtime.redis)
    idle = waiting.advance == 0 and waiting.download == 0
    since = "" if oldest is None or idle else f"; the oldest event has waited for {span(oldest)}"
    yield Line(
        "work",
        "ok" if idle else "warning",
        f"{waiting.advance} production(s) and {waiting.download} file(s) wait for a worker{since}",
    )
    yield _notices(runtime)
    letters = deadletters.count(runtime.redis)
    said = f"{letters} wait for a person: `deadletters list`" if letters else "none"
    yield Line("dead letters", "warning" if letters else "ok", said)
    doubts = triggers.doubts(runtime.redis)
    if doubts:
        told = f"{len(doubts)} without an answer, the oldest: {doubts[0].topic!r}"
        yield Line("triggers", "warning", f"{told}; JARAI may have started them: `productions doubts`")


def _notices(runtime: Runtime) -> Line:
    """Nothing is sent: whether the receiver takes notices is seen from those that wait."""
    settings, redis = runtime.settings, runtime.redis
    oldest_at = notices.oldest_at(redis)
    waits = (
        "" if oldest_at is None else f"{notices.waiting(redis)} notice(s) wait, the oldest since {instant(oldest_at)}"
    )
    if not settings.notify_url:
        verdict: Verdict = "warning" if waits else "ok"
        return Line("notify", verdict, f"NOTIFY_URL is not set: nobody is told{f'; {waits}' if waits else ''}")
    late = oldest_at is not None and productions.now(redis) - oldest_at > _LATEST_NOTICE
    return Line("notify", "warning" if late else "ok", f"{settings.notify_place} is told; {waits or 'nothing waits'}")
