"""The poller: the clock of a deployment, and the only one who spends its budget of requests.

Two threads: one looks every second at the latest whether the due lists have to be swept, one asks JARAI. Any number of
pollers share the work.
"""

from __future__ import annotations

import signal
import threading
from time import monotonic

from redis.exceptions import RedisError

from service import jobs, log
from service.runtime import Runtime, renewed
from service.settings import Watcher
from service.store import deployment, due, productions
from workers.asker import Asker
from workers.radar import SECONDS_BETWEEN_LOOKS, Radar

_LONGEST_NAP_SECONDS = 1.0
_SHORTEST_NAP_SECONDS = 0.02
_LONGEST_QUIET_SECONDS = 10.0  # a clock that was set back is nobody's news
_FORGET_EVERY_SECONDS = 60.0
_MOST_FORGOTTEN = 100


class Poller:
    """One process's share of sweeping and asking. `stop` may be called from a signal handler."""

    def __init__(self, runtime: Runtime) -> None:
        self._redis = runtime.redis
        self._stopping = False
        self._wake = threading.Event()
        self._settings, self._watcher = runtime.settings, Watcher()
        asks = bool(runtime.settings.jarai_api_key)
        self._asker = Asker(runtime.redis, runtime.jarai, runtime.settings) if asks else None
        self._notifies = bool(runtime.settings.notify_url)
        self._log = log.get()
        self._without_store: set[str] = set()
        self._forgot_at = self._looked_at = 0.0
        self._quiet_until, self._news = 0.0, b""
        self._radar = Radar(runtime.redis, runtime.settings)
        self._deployment = ""

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Sweep until stopped."""
        thread = threading.Thread(target=self._ask, name="asker", daemon=True)
        thread.start()
        while not self._stopping:
            try:
                nap = self._nothing_new() or self._sweep()
                self._note_store("sweep", None)
            except RedisError as error:
                self._note_store("sweep", error)
                self._quiet_until = 0.0
                nap = _LONGEST_NAP_SECONDS
            threading.Event().wait(nap)  # not sleep(): a signal has to end it
        self._wake.set()
        thread.join(timeout=8)

    def _nothing_new(self) -> float:
        """The seconds until the next look, where a sweep would find nothing; else 0. One command instead of a dozen."""
        left = min(self._quiet_until, self._looked_at + SECONDS_BETWEEN_LOOKS) - monotonic()
        if left <= 0 or due.news(self._redis) != self._news:
            return 0.0
        return min(_LONGEST_NAP_SECONDS, max(_SHORTEST_NAP_SECONDS, left))

    def _sweep(self) -> float:
        """Ring for whatever is due and not worked on; the seconds until the next look."""
        began = monotonic()
        now = due.sweep(self._redis, asks=self._asker is not None)
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
        if now.ask:
            self._wake.set()
        if monotonic() - self._forgot_at > _FORGET_EVERY_SECONDS:
            self._forgot_at = monotonic()
            for identity in productions.forget(self._redis, _MOST_FORGOTTEN):
                self._log("production.forgotten", production_id=identity)
        if monotonic() - self._looked_at > SECONDS_BETWEEN_LOOKS:
            self._looked_at = monotonic()
            self._renew()
            self._radar.look()
        return self._nap(now, began)

    def _renew(self) -> None:
        """Ask with another API key from now on, where the `.env` file has another."""
        found = renewed(self._watcher, self._settings, "poller")
        if found is not None:
            self._settings = found
            self._asker = Asker(self._redis, Runtime(found).jarai, found) if found.jarai_api_key else None
            self._radar = Radar(self._redis, found)

    def _look_for_loss(self, found: str) -> None:
        """A Redis that was emptied under us, or put in the place of ours, is said once among all pollers."""
        # A new deployment gets its name from a worker, which may start after this.
        self._deployment = self._deployment or deployment.remembered(self._settings.state_dir)
        if self._deployment and found != self._deployment:
            found = found or deployment.settle_in(self._redis, self._deployment)
            if found:
                self._log("store.emptied")
        self._deployment = found or self._deployment

    def _nap(self, now: due.Due, began: float) -> float:
        self._quiet_until, self._news = 0.0, now.news
        if self._stopping:
            return _LONGEST_NAP_SECONDS
        if not now.quiet:  # somebody is at it, or the budget does not allow it yet
            return _LONGEST_NAP_SECONDS / 4
        ahead = _LONGEST_QUIET_SECONDS if now.next_at is None else (now.next_at - now.now).total_seconds()
        if self._deployment:  # while it is nameless, everything may come and go between two looks
            self._quiet_until = began + min(_LONGEST_QUIET_SECONDS, ahead)
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


def run(runtime: Runtime) -> None:
    """Be a poller until SIGTERM or Ctrl-C."""
    poller = Poller(runtime)
    signal.signal(signal.SIGTERM, lambda *_: poller.stop())
    signal.signal(signal.SIGINT, lambda *_: poller.stop())
    poller.run()
    log.get()("service.stopped", process="poller")
