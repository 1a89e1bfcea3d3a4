"""The queue `notify`: tells whoever listens at NOTIFY_URL what has been committed, signed, until it has been taken.

One attempt is one request, limited as a whole; what follows from it is decided in `core.notices`.
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

import urllib3
from redis import Redis
from redis.exceptions import RedisError
from standardwebhooks import Webhook
from urllib3.util import Timeout

from service import log, outgoing, runtime
from service.core import retry
from service.core.notices import GONE, Verdict, judge, retry_after
from service.jarai import USER_AGENT
from service.settings import Settings
from service.store import notices
from service.store.notices import NoticeClaim
from workers import shutdown

# Together less than what a process gets to end in good order.
_ANSWER_SECONDS, _REST_SECONDS = 7.0, 1.0
_MOST_READ_BYTES = 4096


def run() -> None:
    """The job: a bell has rung."""
    here = runtime.current("worker notify")
    if not here.settings.notify_url:
        return
    try:
        Notifier(here.redis, here.settings).drain()
    except RedisError as error:  # the claim runs out and the sweep rings again
        log.get()("store.unavailable", error=f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class _Answer:
    """`status` None: none came, and `error` says why. Nothing of what stands in an answer is ever repeated."""

    status: int | None = None
    error: str = ""
    retry_after: timedelta = timedelta(0)


class Notifier:
    """Sends what is due, one notice after the other. Any number may run at the same time, on any host."""

    def __init__(self, redis: Redis, settings: Settings, longest_seconds: float = _ANSWER_SECONDS) -> None:
        self._redis, self._url, self._longest_seconds = redis, settings.notify_url, longest_seconds
        self._signer = Webhook(settings.notify_secret)
        self._pool = outgoing.open_pool(Timeout(connect=longest_seconds, read=longest_seconds))
        self._log = log.get()

    def drain(self) -> int:
        """Send everything that is due; how many attempts that were."""
        done = 0
        while not shutdown.requested():
            claim = notices.claim(self._redis, uuid.uuid4().hex)
            if claim is None:
                break
            self._attempt(claim)
            done += 1
        return done

    def _attempt(self, claim: NoticeClaim) -> None:
        started = monotonic()
        if claim.claims > retry.MOST_CLAIMS:
            self._failed(claim, Verdict(), f"each of {retry.MOST_CLAIMS} processes that sent it died or hung")
            return
        answer = self._send(claim)
        verdict = judge(
            answer.status,
            answer.retry_after,
            attempts=claim.attempts,
            receiver_failures=claim.receiver_failures,
            notice_id=claim.id,
        )
        if not verdict.delivered:
            self._failed(claim, verdict, answer.error)
        elif notices.delivered(self._redis, claim):
            seconds = round(monotonic() - started, 3)
            self._log("notice.delivered", **_who(claim), attempts=claim.attempts + 1, seconds=seconds)

    def _failed(self, claim: NoticeClaim, verdict: Verdict, error: str) -> None:
        if not notices.failed(self._redis, claim, verdict, error):
            return  # somebody else has it by now, and will tell
        if verdict.again_in is None:
            self._log("deadletter.added", **_who(claim), deadletter_id=notices.letter_id(claim.id), reason=error)
            return
        next_at = claim.now + verdict.again_in
        self._log("notice.retrying", **_who(claim), error=error, attempts=claim.attempts + 1, next_at=next_at)

    def _send(self, claim: NoticeClaim) -> _Answer:
        try:
            with outgoing.within(self._longest_seconds):
                # On a connection of its own: one that was kept may be found closed, and that would look like a failure.
                answer = self._pool.request(
                    "POST",
                    self._url,
                    body=claim.body.encode(),
                    headers=self._headers(claim),
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
        except urllib3.exceptions.HTTPError as error:
            return _Answer(error=f"no answer: {_plain(error)}")
        except Exception as error:  # noqa: BLE001 - here one notice's turn ends: noted, sent again, then buried
            return _Answer(error=f"no answer: unexpected {type(error).__name__}")
        _let_go(answer)
        asked = retry_after(answer.status, answer.headers.get("Retry-After", ""), claim.now)
        return _Answer(answer.status, _said(answer.status), asked)

    def _headers(self, claim: NoticeClaim) -> dict[str, str]:
        """The id is the notice's, the time is the attempt's."""
        return {
            "User-Agent": USER_AGENT,
            "Content-Type": "application/json",
            "Connection": "close",
            "webhook-id": claim.id,
            "webhook-timestamp": str(int(claim.now.timestamp())),
            "webhook-signature": self._signer.sign(claim.id, claim.now, claim.body),
        }


def _who(claim: NoticeClaim) -> dict[str, str | None]:
    return {
        "production_id": claim.production_id,
        "account_id": claim.account_id or None,
        "notice_id": claim.id,
        "type": claim.type,
    }


def _let_go(answer: urllib3.BaseHTTPResponse) -> None:
    """The status has decided. A little of the rest is read, so that its sender does not find the line cut."""
    left = _MOST_READ_BYTES
    with contextlib.suppress(urllib3.exceptions.HTTPError, OSError), outgoing.within(_REST_SECONDS):
        while left > 0 and (chunk := answer.read1(left)):
            left -= len(chunk)
    answer.close()
    answer.release_conn()


def _said(status: int) -> str:
    if status == GONE:
        return f"answered with {status}: it wants no more of this"
    if 300 <= status < 400:
        return f"answered with {status}: NOTIFY_URL has to be the address that it leads to"
    return f"answered with {status}"


def _plain(error: Exception) -> str:
    """What went wrong, without the address."""
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its name can't be resolved"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "it takes too long"
    if isinstance(error, urllib3.exceptions.SSLError):
        return "its certificate is not accepted, or it speaks no TLS"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "there is no connection to it"
    return type(error).__name__
