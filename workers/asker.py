"""Asks JARAI one question after the other, as far as the budget goes; also starts anew what has expired."""

from __future__ import annotations

from datetime import datetime, timedelta
from time import monotonic

from redis import Redis
from redis.exceptions import RedisError

from service import jobs, log, pacing, partner
from service.core import partner_api, retry, triggering
from service.core.errors import JaraiError, JaraiRefused, JaraiUnavailable, RateLimited, UnreadableState
from service.core.evidence import without_future
from service.core.observations import (
    AskFailed,
    DeliverablesAnswered,
    OperatorAsked,
    Question,
    Retriggered,
    StatusAnswered,
    Written,
)
from service.core.partner_api import Response
from service.core.production import Production
from service.core.schedule import due_question, held_until
from service.jarai import Jarai
from service.settings import Settings
from service.store import due, inbox, requests, triggers
from service.store.due import AskClaim
from service.store.triggers import Intent

_LONGEST_WAIT_SECONDS = 1.0
_LARGEST_LEAD = timedelta(days=1)
_LEAST_QUOTA_PAUSE = timedelta(minutes=5)  # before a production is asked for again that an account had no quota for


class Asker:
    """Asks JARAI one question after the other, as far as the budget goes."""

    def __init__(self, redis: Redis, jarai: Jarai, settings: Settings) -> None:
        self._redis, self._jarai, self._settings = redis, jarai, settings
        self._log = log.get()
        self._paused = False
        self._not_before = 0.0

    def ask_once(self) -> bool:
        """Ask about the production that is due first. False: nothing is due, or the budget says no."""
        if monotonic() < self._not_before:
            return False
        token, wait_seconds = requests.take(self._redis, self._settings.limits)
        if not token:
            self._not_before = monotonic() + min(wait_seconds, _LONGEST_WAIT_SECONDS)
            if not self._paused:
                self._log("poll.paused", seconds=round(wait_seconds, 1))
            self._paused = True
            return False
        self._paused = False
        try:
            claimed = due.claim_ask(self._redis)
        except UnreadableState as error:
            requests.give_back(self._redis, token)
            self._log("production.unreadable", error=str(error))
            return True
        if claimed is None:
            requests.give_back(self._redis, token)
            return False
        self._ask_about(claimed, token)
        return True

    def _ask_about(self, claim: AskClaim, token: str) -> None:
        production, now = claim.production, claim.now
        question = due_question(production, now)
        identity = production.production_id
        if claim.tries > retry.MOST_CLAIMS:
            requests.give_back(self._redis, token)
            died = JaraiRefused(f"each of {retry.MOST_CLAIMS} processes that asked died or hung", code="PROCESS_DIED")
            self._report_failed(production, question, now, died, final=True)
            return
        held = held_until(without_future(production, now), pacing.read(self._redis, self._settings).spread)
        if held is not None and held > now:
            requests.give_back(self._redis, token)
            due.give_back_ask(self._redis, identity, held)
            return
        began = monotonic()
        try:
            if question == "trigger":
                self._trigger_again(production, now, token)
                return
            ask = partner_api.deliverables_request if question == "deliverables" else partner_api.status_request
            response = partner.counted(self._redis, self._jarai, ask(identity), token)
            observation = _read(response, production, now, question)
        except RateLimited as error:  # its turn comes again as soon as the budget allows
            self._say_failed(production, question, error)
            wait = max(_LEAST_QUOTA_PAUSE, timedelta(seconds=error.retry_after_seconds or 0))
            due.give_back_ask(self._redis, identity, now + wait if question == "trigger" else None)
        except JaraiError as error:
            if error.status in (401, 403):  # the key's fault more likely than the production's
                self._log("jarai.refused", code=error.code, error=str(error), correlation_id=error.correlation_id)
            if error.status == 401 or error.code == partner_api.PARTNER_NOT_ACTIVE:
                self._say_failed(production, question, error)
                due.give_back_ask(self._redis, identity)
                return
            final = isinstance(error, JaraiRefused) and (error.status != 403 or question == "trigger")
            self._report_failed(production, question, now, error, final=final)
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001 - here one question's turn ends: noted, tried again, then buried
            odd = JaraiError(f"unexpected {type(error).__name__}: {error}", code="UNEXPECTED")
            final = production.ask_failures >= retry.MOST_CLAIMS
            self._report_failed(production, question, now, odd, final=final)
        else:
            self._log(
                "poll.answered",
                production_id=identity,
                account_id=production.account_id,
                question=question,
                correlation_id=response.correlation_id,
                seconds=round(monotonic() - began, 3),
            )
            self._report(production, observation)

    def _trigger_again(self, production: Production, now: datetime, token: str) -> None:
        """What has expired is triggered once more. CONTRACT [docs]: at once is safe.

        Where nobody can know whether that has started one, it is not repeated: a person has to look. Raises JaraiError.
        """
        identity = production.production_id
        wish = triggering.as_sent(production.account_id or "", production.trigger_body)
        digest = f"{identity}-{production.retries_left}-{production.retry_round}"
        intent = Intent(digest, token, wish.account_id, wish.short_topic)
        before = triggers.intend(self._redis, intent, again=False)
        if before is not None:  # a process died between the question and the answer
            requests.give_back(self._redis, token)
            raise self._in_doubt(wish.account_id, before.at, "no answer was taken in", None)
        try:
            response = partner.counted(self._redis, self._jarai, wish.request, token)
            started = triggering.read_started(response)
        except JaraiUnavailable as error:
            if error.sent:
                since = triggers.doubt(self._redis, intent)
                raise self._in_doubt(wish.account_id, since, str(error), error.correlation_id) from None
            triggers.relent(self._redis, intent)
            raise
        except JaraiError:
            triggers.relent(self._redis, intent)
            raise
        tracked = OperatorAsked(
            now,
            "track",
            wish.account_id,
            triggered=True,
            body=production.trigger_body,
            retries_left=production.retries_left - 1,
            retry_of=production.retry_of or identity,
        )
        triggers.started(self._redis, started, intent, tracked, (identity, Retriggered(now, started)))
        due.asked(self._redis, identity)
        jobs.ring(self._redis, "advance")
        self._log(
            "production.triggered",
            production_id=started,
            account_id=wish.account_id,
            retry_of=tracked.retry_of,
            correlation_id=response.correlation_id,
        )

    def _in_doubt(self, account_id: str, since: datetime, problem: str, correlation_id: str | None) -> JaraiRefused:
        advice = triggering.in_doubt_again(triggers.unclaimed(self._redis, account_id, since))
        return JaraiRefused(f"{problem}: {advice}", code="OUTCOME_UNKNOWN", correlation_id=correlation_id)

    def _report_failed(
        self, production: Production, question: Question, now: datetime, error: JaraiError, *, final: bool
    ) -> None:
        self._say_failed(production, question, error)
        self._report(
            production,
            AskFailed(
                at=now,
                question=question,
                message=str(error),
                code=error.code,
                final=final,
                correlation_id=error.correlation_id,
            ),
        )

    def _report(self, production: Production, observation: Written) -> None:
        wakes = inbox.observe(self._redis, production.production_id, observation)
        due.asked(self._redis, production.production_id)
        if wakes:
            jobs.ring(self._redis, "advance")

    def _say_failed(self, production: Production, question: Question, error: JaraiError) -> None:
        self._log(
            "poll.failed",
            production_id=production.production_id,
            account_id=production.account_id,
            question=question,
            code=error.code,
            error=str(error),
            correlation_id=error.correlation_id,
        )


def _read(response: Response, production: Production, now: datetime, question: Question) -> Written:
    """The answer as an observation. Raises JaraiError. A `Date` far ahead of us is nobody's clock."""
    as_of = partner_api.date(response)
    if as_of is not None and as_of > now + _LARGEST_LEAD:
        as_of = None
    if question == "deliverables":
        return DeliverablesAnswered(
            at=now,
            knew_sequence=production.sequence,
            listed=partner_api.read_deliverables(response, as_of or now),
            as_of=as_of,
            knew_terminal=production.terminal,
            sandbox=partner_api.is_sandbox(response),
            correlation_id=response.correlation_id,
        )
    answer = partner_api.read_status(response)
    return StatusAnswered(
        at=now,
        as_of=as_of or now,
        knew_sequence=production.sequence,
        status=answer.status,
        account_id=answer.account_id,
        error_code=answer.error_code,
        error_message=answer.error_message,
        expires_at=answer.expires_at,
        sandbox=answer.sandbox,
        correlation_id=response.correlation_id,
    )
