"""The poller: the clock of a deployment, and the only one who spends its budget of requests.

Two threads: one sweeps the due lists every second at the latest, one asks JARAI. Any number of pollers share the work.
"""

from __future__ import annotations

import signal
import threading
from datetime import datetime, timedelta
from time import monotonic

from redis import Redis
from redis.exceptions import RedisError

from service import jobs, log, pacing, partner
from service.core import partner_api, retry
from service.core.errors import JaraiError, JaraiRefused, RateLimited, UnreadableState
from service.core.observations import AskFailed, DeliverablesAnswered, StatusAnswered, Written
from service.core.partner_api import Request, Response
from service.core.production import Production
from service.core.schedule import held_until
from service.jarai import Jarai
from service.runtime import Runtime
from service.settings import Settings
from service.store import deployment, due, inbox, productions, requests
from service.store.due import AskClaim
from workers.radar import SECONDS_BETWEEN_LOOKS, Radar

_LONGEST_NAP_SECONDS = 1.0
_SHORTEST_NAP_SECONDS = 0.02
_FORGET_EVERY_SECONDS = 60.0
_MOST_FORGOTTEN = 100
_LARGEST_LEAD = timedelta(days=1)


class Poller:
    """One process's share of sweeping and asking. `stop` may be called from a signal handler."""

    def __init__(self, runtime: Runtime) -> None:
        self._redis = runtime.redis
        self._stopping = False
        self._wake = threading.Event()
        asks = bool(runtime.settings.jarai_api_key)
        self._asker = Asker(runtime.redis, runtime.jarai, runtime.settings) if asks else None
        self._notifies = bool(runtime.settings.notify_url)
        self._log = log.get()
        self._without_store: set[str] = set()
        self._forgot_at = self._looked_at = 0.0
        self._radar = Radar(runtime.redis, runtime.settings)
        self._deployment = deployment.remembered(runtime.settings.state_dir)

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Sweep until stopped."""
        thread = threading.Thread(target=self._ask, name="asker", daemon=True)
        thread.start()
        while not self._stopping:
            try:
                nap = self._sweep()
                self._note_store("sweep", None)
            except RedisError as error:
                self._note_store("sweep", error)
                nap = _LONGEST_NAP_SECONDS
            threading.Event().wait(nap)  # not sleep(): a signal has to end it
        self._wake.set()
        thread.join(timeout=8)

    def _sweep(self) -> float:
        """Ring for whatever is due and not worked on; the seconds until the next look."""
        now = due.sweep(self._redis)
        if now.set_back_seconds:
            self._log("clock.set_back", seconds=round(now.set_back_seconds, 1))
        self._look_for_loss(now.deployment)
        if now.advance and not now.advance_bells:
            jobs.ring(self._redis, "advance", bells=1 + now.advance // 32)
            self._log("sweep.rang", queue="advance")
        if now.download > now.download_bells:
            jobs.ring(self._redis, "download", bells=now.download)
            self._log("sweep.rang", queue="download")
        if now.notify and not now.notify_bells and self._notifies:
            jobs.ring(self._redis, "notify")
            self._log("sweep.rang", queue="notify")
        if now.ask and self._asker is not None:
            self._wake.set()
        if monotonic() - self._forgot_at > _FORGET_EVERY_SECONDS:
            self._forgot_at = monotonic()
            for identity in productions.forget(self._redis, _MOST_FORGOTTEN):
                self._log("production.forgotten", production_id=identity)
        if monotonic() - self._looked_at > SECONDS_BETWEEN_LOOKS:
            self._looked_at = monotonic()
            self._radar.look()
        return self._nap(now)

    def _look_for_loss(self, found: str) -> None:
        """A Redis that was emptied under us, or put in the place of ours, is said once among all pollers."""
        if self._deployment and found != self._deployment:
            found = found or deployment.settle_in(self._redis, self._deployment)
            if found:
                self._log("store.emptied")
        self._deployment = found or self._deployment

    def _nap(self, now: due.Due) -> float:
        if now.next_at is None or self._stopping:
            return _LONGEST_NAP_SECONDS
        ahead = (now.next_at - now.now).total_seconds()
        if ahead <= 0:  # somebody is at it, or the budget does not allow it yet
            return _LONGEST_NAP_SECONDS / 4
        return min(_LONGEST_NAP_SECONDS, max(_SHORTEST_NAP_SECONDS, ahead))

    def _ask(self) -> None:
        while not self._stopping:
            self._wake.wait()
            self._wake.clear()
            try:
                while not self._stopping and self._asker is not None and self._asker.ask_once():
                    pass
                self._note_store("ask", None)
            except RedisError as error:
                self._note_store("ask", error)
            except Exception as error:  # noqa: BLE001 - here one turn ends; its claim runs out and it comes again
                self._log("poll.failed", question="unexpected", error=f"{type(error).__name__}: {error}")

    def _note_store(self, who: str, error: RedisError | None) -> None:
        """One line when the first of the two finds Redis in trouble, one when both are well again."""
        if error is not None and not self._without_store:
            self._log("store.unavailable", error=f"{type(error).__name__}: {error}")
        if error is not None:
            self._without_store.add(who)
        elif who in self._without_store:
            self._without_store.remove(who)
            if not self._without_store:
                self._log("store.available")


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
            self._not_before = monotonic() + min(wait_seconds, _LONGEST_NAP_SECONDS)
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
        wants_list = production.list_at is not None and production.list_at <= now
        identity = production.production_id
        if claim.tries > retry.MOST_CLAIMS:
            requests.give_back(self._redis, token)
            died = JaraiRefused(f"each of {retry.MOST_CLAIMS} processes that asked died or hung", code="PROCESS_DIED")
            self._report(production, _failed(died, now, wants_list, final=True), died)
            return
        held = held_until(production, pacing.read(self._redis, self._settings).spread)
        if held is not None and held > now:
            requests.give_back(self._redis, token)
            due.give_back_ask(self._redis, identity, held)
            return
        question = partner_api.deliverables_request if wants_list else partner_api.status_request
        began = monotonic()
        try:
            response = self._call(question(identity), token)
            observation = _read(response, production, now, wants_list)
        except RateLimited as error:  # its turn comes again as soon as the budget allows
            self._say_failed(production, wants_list, error)
            due.give_back_ask(self._redis, identity)
            return
        except JaraiError as error:
            if error.status in (401, 403):  # the key's fault more likely than the production's
                self._log("jarai.refused", code=error.code, error=str(error), correlation_id=error.correlation_id)
            if error.status == 401:
                self._say_failed(production, wants_list, error)
                due.give_back_ask(self._redis, identity)
                return
            final = isinstance(error, JaraiRefused) and error.status != 403
            self._report(production, _failed(error, now, wants_list, final), error)
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001 - here one question's turn ends: noted, tried again, then buried
            odd = JaraiError(f"unexpected {type(error).__name__}: {error}", code="UNEXPECTED")
            final = production.ask_failures >= retry.MOST_CLAIMS
            self._report(production, _failed(odd, now, wants_list, final), odd)
        else:
            self._log(
                "poll.answered",
                production_id=identity,
                account_id=production.account_id,
                question="deliverables" if wants_list else "status",
                correlation_id=response.correlation_id,
                seconds=round(monotonic() - began, 3),
            )
            self._report(production, observation)

    def _report(self, production: Production, observation: Written, error: JaraiError | None = None) -> None:
        if error is not None:
            self._say_failed(production, getattr(observation, "question", "") == "deliverables", error)
        wakes = inbox.observe(self._redis, production.production_id, observation)
        due.asked(self._redis, production.production_id)
        if wakes:
            jobs.ring(self._redis, "advance")

    def _call(self, request: Request, token: str) -> Response:
        return partner.counted(self._redis, self._jarai, request, token)

    def _say_failed(self, production: Production, wants_list: bool, error: JaraiError) -> None:
        self._log(
            "poll.failed",
            production_id=production.production_id,
            account_id=production.account_id,
            question="deliverables" if wants_list else "status",
            code=error.code,
            error=str(error),
            correlation_id=error.correlation_id,
        )


def _failed(error: JaraiError, now: datetime, wants_list: bool, final: bool) -> AskFailed:
    return AskFailed(
        at=now,
        question="deliverables" if wants_list else "status",
        message=str(error),
        code=error.code,
        final=final,
        correlation_id=error.correlation_id,
    )


def _read(response: Response, production: Production, now: datetime, wants_list: bool) -> Written:
    """The answer as an observation. Raises JaraiError. A `Date` far ahead of us is nobody's clock."""
    as_of = partner_api.date(response)
    if as_of is not None and as_of > now + _LARGEST_LEAD:
        as_of = None
    if wants_list:
        return DeliverablesAnswered(
            at=now,
            knew_sequence=production.sequence,
            listed=partner_api.read_deliverables(response, as_of or now),
            as_of=as_of,
            knew_terminal=production.terminal,
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


def run(runtime: Runtime) -> None:
    """Be a poller until SIGTERM or Ctrl-C."""
    poller = Poller(runtime)
    signal.signal(signal.SIGTERM, lambda *_: poller.stop())
    signal.signal(signal.SIGINT, lambda *_: poller.stop())
    poller.run()
    log.get()("service.stopped", process="poller")
