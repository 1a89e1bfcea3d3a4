"""What a person asks of JARAI: every such request goes through here, within the budget that all processes share."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from service import jobs, log, operator
from service.core import partner_api
from service.core.advice import advise, no_request_left
from service.core.budget import Answer, read_answer
from service.core.errors import (
    JaraiError,
    JaraiUnavailable,
    NoRequestLeft,
    NotTracked,
    OutcomeUnknown,
    SettingsError,
    StoreUnavailable,
)
from service.core.observations import OperatorAsked
from service.core.partner_api import Request, Response
from service.core.triggering import BY_COMMAND, How, Wanted, in_doubt, read_started, still_in_doubt
from service.runtime import Runtime
from service.store import productions, requests, triggers
from service.store.triggers import Intent

if TYPE_CHECKING:
    from service.jarai import Jarai

Read = TypeVar("Read")
_LONGEST_QUOTA_PAUSE_SECONDS = 60.0


def counted(redis: Redis, jarai: Jarai, request: Request, token: str) -> Response:
    """One request, its answer counted in the budget whatever it says.

    Where Redis fails meanwhile, the answer goes uncounted: that it is here is worth more.
    """
    response: Response | None = None
    try:
        response = jarai.call(request)
        return response
    finally:
        with contextlib.suppress(RedisError):
            requests.settle(redis, token, _for_the_budget(redis, request, response))


def ask(here: Runtime, request: Request, read: Callable[[Response], Read]) -> Read:
    """What `read` makes of JARAI's answer. A newcomer has no Redis yet: where none answers, it goes without.

    Raises JaraiError with its advice, NoRequestLeft, and SettingsError without a key.
    """
    token = ""
    if not request.keyless:
        with contextlib.suppress(RedisError, StoreUnavailable):
            token = _permission(here)
    return _answer(here, request, token, read)


def trigger(here: Runtime, wish: Wanted, retries_left: int = 0, *, again: bool = False, how: How = BY_COMMAND) -> str:
    """Have JARAI start a production, and follow it from then on; its id. Nothing is sent where Redis does not answer.

    `how` whoever asks would send it once more, should nobody know whether it was started.

    Raises JaraiError (certainly nothing was started), OutcomeUnknown (also for the same wish as long as the outcome of
    an earlier request for it is not known, unless `again`), NoRequestLeft, NotTracked, SettingsError and RedisError.
    """
    redis, token = here.redis, _permission(here)
    intent = Intent(wish.digest, uuid.uuid4().hex, wish.account_id, wish.short_topic)
    before = triggers.intend(redis, intent, again=again)
    if before is not None:
        requests.give_back(redis, token)
        seen = triggers.unclaimed(redis, wish.account_id, before.at)
        raise OutcomeUnknown(still_in_doubt(before.at, before.now, seen, how), repeated=True)
    try:
        identity, reference = _answer(here, wish.request, token, lambda one: (read_started(one), one.correlation_id))
    except JaraiError as error:
        if isinstance(error, JaraiUnavailable) and error.sent:
            raise _in_doubt(redis, intent, error, how) from None
        with contextlib.suppress(RedisError):
            triggers.relent(redis, intent)
        raise
    except KeyboardInterrupt:
        raise _in_doubt(redis, intent, JaraiUnavailable("broken off"), how) from None
    try:
        body = wish.body if retries_left else ""
        now = productions.now(redis)
        tracked = OperatorAsked(now, "track", wish.account_id, triggered=True, body=body, retries_left=retries_left)
        triggers.started(redis, identity, intent, tracked)
    except RedisError as error:
        raise _not_tracked("started", identity, error) from None
    _ring(redis)
    log.get()("production.triggered", production_id=identity, account_id=wish.account_id, correlation_id=reference)
    return identity


def cancel(here: Runtime, identity: str) -> None:
    """Have JARAI cancel a production, followed here or not; its status is asked for afterwards.

    Raises JaraiError, NoRequestLeft, NotTracked, SettingsError and RedisError.
    """
    token = _permission(here)
    request = partner_api.cancel_request(identity)
    reference = _answer(here, request, token, _done)
    try:
        operator.refresh(here.redis, identity)
    except RedisError as error:
        raise _not_tracked("cancelled", identity, error) from None
    log.get()("production.cancelled", production_id=identity, correlation_id=reference)


def _done(response: Response) -> str | None:
    partner_api.read_done(response)
    return response.correlation_id


def _permission(here: Runtime) -> str:
    """The token of a request that may go out now."""
    if not here.settings.jarai_api_key:
        raise SettingsError("JARAI_API_KEY is not set: `partners register` and `partners verify TOKEN` bring one.")
    token, wait_seconds = requests.take(here.redis, here.settings.limits, person=True)
    if not token:
        raise NoRequestLeft(no_request_left(wait_seconds, _local_now()), wait_seconds)
    return token


def _answer(here: Runtime, request: Request, token: str, read: Callable[[Response], Read]) -> Read:
    try:
        return read(counted(here.redis, here.jarai, request, token) if token else here.jarai.call(request))
    except JaraiError as error:
        error.advice = advise(error, request, _local_now())
        raise


def _for_the_budget(redis: Redis, request: Request, response: Response | None) -> Answer:
    if response is None:
        return Answer(status=None)
    wait_seconds = partner_api.retry_after_seconds(response) if response.status >= 400 else None
    answer = read_answer(response.status, response.headers, wait_seconds, requests.now(redis))
    starts = request.method == "POST" and request.scope == "productions:write"
    if starts and answer.status == 429:
        # CONTRACT [docs]: an account has a quota of productions a day, too. When that is used up, requests may not be,
        # and nobody must stop polling until midnight. Should it be the requests, the next poll is told so.
        long = wait_seconds is None or wait_seconds > _LONGEST_QUOTA_PAUSE_SECONDS
        if answer.remaining and long:
            return replace(answer, status=409, retry_after_seconds=None)
        if wait_seconds is not None and long:
            return replace(answer, retry_after_seconds=_LONGEST_QUOTA_PAUSE_SECONDS)
    if response.status == 403 and partner_api.error_code(response) == partner_api.PARTNER_NOT_ACTIVE:
        return replace(answer, status=401)  # no question of this partner is answered
    return answer


def _in_doubt(redis: Redis, intent: Intent, error: JaraiUnavailable, how: How) -> OutcomeUnknown:
    seen: list[str] = []
    with contextlib.suppress(RedisError):  # then the intent stays as it was noted
        seen = triggers.unclaimed(redis, intent.account_id, triggers.doubt(redis, intent))
    error.advice = in_doubt(seen, how)
    return OutcomeUnknown(error.sentence, repeated=False)


def _not_tracked(done: str, identity: str, error: RedisError) -> NotTracked:
    return NotTracked(
        f"JARAI has {done} production {identity}, and Redis could not take that in ({type(error).__name__}): "
        f"once it answers, `productions track {identity}`."
    )


def _ring(redis: Redis) -> None:
    try:
        jobs.ring(redis, "advance")
    except RedisError as error:  # the sweep rings within a second
        log.get()("bell.failed", error=type(error).__name__)


def _local_now() -> datetime:
    return datetime.now().astimezone()
