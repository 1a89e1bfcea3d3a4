"""The composition root: settings become the parts that a process works with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from service import log
from service.core.errors import SettingsError, StoreUnavailable
from service.settings import DEFAULT_REDIS_URL, Settings, Watcher, load
from service.store.connection import connect, connect_async, safety_problems

if TYPE_CHECKING:
    from service.jarai import Jarai

_TIMEOUT_SECONDS = 5.0
INTAKE_TIMEOUT_SECONDS = 0.7


@dataclass(frozen=True)
class Runtime:
    """What one process is made of. Connections open when they are first used."""

    settings: Settings

    @cached_property
    def redis(self) -> Redis:
        return connect(redis_url(self.settings), timeout_seconds=_TIMEOUT_SECONDS)

    @cached_property
    def intake_redis(self) -> Redis:
        """A client that gives up in time for a 503 within two seconds."""
        return connect(redis_url(self.settings), timeout_seconds=INTAKE_TIMEOUT_SECONDS)

    def intake_async_redis(self) -> AsyncRedis:
        """The same for an event loop, a new one each time: who uses it closes it there."""
        return connect_async(redis_url(self.settings), timeout_seconds=INTAKE_TIMEOUT_SECONDS)

    @cached_property
    def jarai(self) -> Jarai:
        from service.jarai import Jarai  # its HTTP client is not loaded where nobody asks JARAI

        return Jarai(self.settings.jarai_api_url, self.settings.jarai_api_key)


def start(process: str, settings: Settings | None = None) -> Runtime:
    """The runtime of a process, its log set up, and what is wrong with the deployment said at once.

    Raises SettingsError.
    """
    settings = settings or load()
    log.configure(settings.log_format, settings.log_level, settings.secrets)
    runtime = Runtime(settings)
    say = log.get()
    say("service.started", process=process)
    if process == "poller" and not settings.jarai_api_key:
        say("service.key_missing")
    if process == "web":
        if not settings.webhook_secrets:
            say("service.secret_missing")
        try:
            for problem in safety_problems(runtime.redis):
                say("store.unsafe", problem=problem)
        except (RedisError, StoreUnavailable) as error:
            say("store.unavailable", error=str(error))
    return runtime


def renewed(watcher: Watcher, settings: Settings, process: str) -> Settings | None:
    """The settings with the secrets of a `.env` file that has changed since the last look; None where none has.

    Said in the log, which hides the old secrets and the new from then on. A file that can't be used is said once.
    """
    say = log.get()
    try:
        found = watcher.look(settings)
    except SettingsError as error:
        say("settings.refused", error=str(error))
        return None
    if found is not None:
        log.configure(found.log_format, found.log_level, (*settings.secrets, *found.secrets))
        say("settings.reloaded", process=process)
    return found


@cache
def current(process: str) -> Runtime:
    """The runtime of this process, started at the first call: a job is called by its name, with nothing in hand."""
    return start(process)


def redis_url(settings: Settings) -> str:
    """REDIS_URL, or the address of the server that `up` runs in STATE_DIR, or the default."""
    if settings.redis_url:
        return settings.redis_url
    note = embedded_url_file(settings.state_dir)
    lines = note.read_text().splitlines() if note.is_file() else []
    return lines[0] if lines else DEFAULT_REDIS_URL


def embedded_url_file(state_dir: Path) -> Path:
    """Where a running embedded Redis leaves its address (the first line) for other processes of this folder."""
    return state_dir / "redis" / "url"
