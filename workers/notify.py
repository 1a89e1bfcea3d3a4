"""The queue `notify`: tells NOTIFY_URL what there is to tell, signed as Standard Webhooks has it."""

from __future__ import annotations

import uuid
from datetime import timedelta
from urllib.parse import urlsplit

import urllib3
from redis import Redis
from redis.exceptions import RedisError
from standardwebhooks import Webhook
from urllib3.util import Timeout

from service import log, outgoing, runtime
from service.core import retry
from service.jarai import USER_AGENT
from service.settings import Settings
from service.store import deadletters, notices, productions
from service.store.notices import NoticeClaim
from workers import shutdown

_TIMEOUT = Timeout(connect=5, read=8)
_LONGEST_ENDPOINT_PAUSE = timedelta(minutes=5)
_PLEASE_WAIT = (429, 503)


def run() -> None:
    """The job: a bell has rung."""
    here = runtime.current("worker notify")
    try:
        Notifier(here.redis, here.settings).drain()
    except RedisError as error:  # the claim runs out and the sweep rings again
        log.get()("store.unavailable", error=f"{type(error).__name__}: {error}")


class Notifier:
    """Sends what is due. Any number may run at the same time. `answer_seconds`: how long an answer may take in all."""

    def __init__(self, redis: Redis, settings: Settings, answer_seconds: float = 10.0) -> None:
        self._redis, self._url, self._answer_seconds = redis, settings.notify_url, answer_seconds
        self._signer = Webhook(settings.notify_secret)
        self._pool = outgoing.open_pool(_TIMEOUT, {"User-Agent": USER_AGENT, "Content-Type": "application/json"})
        self._log = log.get()

    def drain(self) -> int:
        """Send everything that is due, until the address turns out to be in trouble; how many attempts that were."""
        done = 0
        while not shutdown.requested():
            claim = notices.claim(self._redis, uuid.uuid4().hex)
            if claim is None:
                break
            self._attempt(claim)
            done += 1
        return done

    def _attempt(self, claim: NoticeClaim) -> None:
        status, answer, retry_after_seconds = self._send(claim)
        if status is not None and 200 <= status < 300:
            if notices.delivered(self._redis, claim):
                self._log("notice.delivered", **self._who(claim), attempts=claim.attempts + 1)
            return
        attempts = claim.attempts + 1
        pause = retry.after_failed_notice(attempts, status, retry_after_seconds, claim.id)
        if pause is None:
            self._give_up(claim, attempts, answer)
            return
        # What is wrong with the address is wrong for every notice: one of them tries it, the others wait.
        of_address = status is None or status >= 500 or status == 429
        endpoint_pause = min(pause, _LONGEST_ENDPOINT_PAUSE) if of_address else timedelta(0)
        notices.postpone(self._redis, claim, attempts, pause, endpoint_pause)
        next_at = productions.now(self._redis) + pause
        self._log("notice.retrying", **self._who(claim), error=answer, attempts=attempts, next_at=next_at)

    def _send(self, claim: NoticeClaim) -> tuple[int | None, str, float | None]:
        """The status, or None without an answer; what came of it in words; how long the address wants to be left."""
        now = productions.now(self._redis)
        headers = {
            **self._pool.headers,
            "webhook-id": claim.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(claim.id, now, claim.body),
        }
        try:
            with outgoing.within(self._answer_seconds):
                answer = self._pool.request(
                    "POST", self._url, body=claim.body.encode(), headers=headers, redirect=False, preload_content=False
                )
        except urllib3.exceptions.HTTPError as error:
            return None, f"{_host(self._url)} gives no answer: {type(error).__name__}", None
        answer.close()  # its head says it all
        answer.release_conn()
        wait = answer.headers.get("Retry-After", "") if answer.status in _PLEASE_WAIT else ""
        seconds = float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 8 else None
        return answer.status, f"{_host(self._url)} answers {answer.status}", seconds

    def _give_up(self, claim: NoticeClaim, attempts: int, answer: str) -> None:
        reason = f"{claim.type} could not be told: {answer}"
        if notices.give_up(self._redis, claim, reason, attempts):
            identity = deadletters.letter_id("notice", claim.id)
            self._log("deadletter.added", production_id=claim.production_id, deadletter_id=identity, reason=reason)

    def _who(self, claim: NoticeClaim) -> dict[str, str]:
        return {"production_id": claim.production_id, "notice_id": claim.id, "notice_type": claim.type}


def _host(url: str) -> str:
    """What of NOTIFY_URL may be said: its path and query may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
