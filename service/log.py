"""The log: one JSON object a line, from a catalogue of names, every secret taken out before it is written."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from pydantic_core import to_json

from service.core.redaction import MARKS, redact


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of line: its level, its own fields, what it means, and whether somebody should be woken."""

    level: str
    fields: str
    meaning: str
    alert: bool = False


CATALOGUE: Mapping[str, Entry] = {
    "service.started": Entry("info", "process", "A process is up."),
    "service.stopped": Entry("info", "process", "A process has ended in good order."),
    "service.key_missing": Entry(
        "warning", "", "JARAI_API_KEY is not set: nothing is polled, no list of deliverables is asked for."
    ),
    "service.secret_missing": Entry(
        "error", "", "JARAI_WEBHOOK_SECRETS is not set: every webhook is refused with 401.", True
    ),
    "settings.reloaded": Entry(
        "info", "process", "JARAI_API_KEY or JARAI_WEBHOOK_SECRETS in .env has changed, and this process goes by it."
    ),
    "settings.refused": Entry("warning", "error", "The .env file has changed and can't be used; what was read stays."),
    "process.started": Entry("info", "process, pid", "The launcher started a process."),
    "process.ended": Entry(
        "warning", "process, pid, code", "A process ended by itself; the launcher starts another.", True
    ),
    "process.killed": Entry("warning", "process, pid", "A process did not end within ten seconds and was killed."),
    "webhook.accepted": Entry(
        "info", "event_id, event_type, sequence_number, correlation_id", "An event is durable and was answered 202."
    ),
    "webhook.duplicate": Entry("info", "event_id, event_type, sequence_number", "The same event again; answered 200."),
    "webhook.test": Entry("info", "event_id, correlation_id", "JARAI's test event; makes no production."),
    "webhook.rejected": Entry(
        "warning",
        "status, reason",
        "Nothing was kept: signature wrong (401), too large (413), too slow (408), cut off (400), too many (503).",
        True,
    ),
    "webhook.quarantined": Entry(
        "error", "reason, deadletter_id", "Signed but not usable: kept whole under dead letters.", True
    ),
    "webhook.unavailable": Entry(
        "error", "reason, times", "Could not be kept; answered 503, so JARAI sends it again.", True
    ),
    "production.rebuilt": Entry("info", "status, files", "A manifest brought back a production that Redis had lost."),
    "production.tracked": Entry("info", "", "Somebody asked to follow a production."),
    "production.triggered": Entry(
        "info",
        "retry_of, correlation_id",
        "JARAI has started a production, which is followed from now on; `retry_of`: in the place of one that expired.",
    ),
    "production.retried": Entry("info", "retried_as", "It had expired, and another was triggered in its place."),
    "production.cancelled": Entry(
        "info", "correlation_id", "Somebody had JARAI cancel a production; its status follows."
    ),
    "production.status_changed": Entry(
        "info", "from_status, to_status, source, event_id, event_type, sequence_number", "A production moved."
    ),
    "production.settled": Entry("info", "status, files, bytes", "Terminal and every file stored: nothing left to do."),
    "production.advance_failed": Entry(
        "error", "attempts, error", "Taking in what was observed raised; it is tried again with backoff.", True
    ),
    "production.unreadable": Entry("error", "error", "What is kept of a production can't be read; others go on.", True),
    "poll.recovered": Entry("warning", "from_status, to_status", "A poll found what no webhook had said."),
    "poll.failed": Entry("warning", "question, code, error, correlation_id", "JARAI gave no usable answer."),
    "poll.paused": Entry("info", "seconds", "The budget of requests is used up for now; asking goes on afterwards."),
    "poll.answered": Entry("debug", "question, correlation_id, seconds", "JARAI gave an answer of use."),
    "budget.outlook": Entry(
        "info",
        "noticed_within_seconds, at_this_rate_seconds, requests_left_today",
        "How late a webhook that gets lost is noticed, at the longest: now, and late today at this rate of requests.",
    ),
    "radar.day": Entry(
        "info",
        "day, received, missed, missed_percent, unsubscribed, ends_missed, requests",
        "Yesterday (UTC), of productions that settled: webhooks that came and that never came, requests to JARAI.",
    ),
    "radar.hole_learnt": Entry(
        "info",
        "event_type",
        "A number is always missing before this event type: the subscription lacks one, and nobody asks for it again.",
    ),
    "webhooks.silent": Entry(
        "error",
        "seconds, productions, recovered, likely",
        "Productions are being made, and no webhook comes for any; `recovered`: what polls have found instead.",
        True,
    ),
    "webhooks.heard_again": Entry("info", "", "Webhooks come again."),
    "jarai.refused": Entry("error", "code, error, correlation_id", "JARAI refuses this deployment's API key.", True),
    "deliverables.listed": Entry("info", "listed, correlation_id", "A list of deliverables with fresh addresses came."),
    "deliverable.stored": Entry(
        "info",
        "deliverable_id, type, file, bytes, sha256, seconds, version",
        "A file lies verified under its final name.",
    ),
    "deliverable.retrying": Entry(
        "warning", "deliverable_id, type, failure, error, attempts, next_at", "A download failed and is tried again."
    ),
    "deliverable.compared": Entry(
        "info", "deliverable_id, type, outcome", "JARAI's file was held against the stored one, which stays."
    ),
    "deliverable.damaged": Entry(
        "error",
        "deliverable_id, type, file, problem, fetched_again",
        "A stored file is not what it was (`verify`); it is fetched again where JARAI still lists it.",
        True,
    ),
    "manifest.failed": Entry("error", "failure, error", "manifest.json could not be written; it is tried again.", True),
    "storage.unavailable": Entry(
        "error", "error", "The storage is full, gone, read-only or does not answer; downloads wait.", True
    ),
    "storage.available": Entry("info", "", "The storage takes files again."),
    "notice.delivered": Entry("info", "notice_id, type, attempts, seconds", "NOTIFY_URL has taken a notice."),
    "notice.retrying": Entry(
        "warning",
        "notice_id, type, error, attempts, next_at",
        "NOTIFY_URL has not taken a notice; it is sent again, under the same id.",
    ),
    "deadletter.added": Entry("error", "deadletter_id, reason", "Work was given up until somebody looks.", True),
    "deadletter.retried": Entry("info", "deadletter_id", "Somebody had a dead letter tried again."),
    "deadletter.discarded": Entry("info", "deadletter_id", "Somebody threw a dead letter away."),
    "bell.failed": Entry("warning", "error", "A worker could not be woken; the sweep does it within a second."),
    "store.unavailable": Entry("error", "error", "Redis does not answer or takes nothing.", True),
    "store.available": Entry("info", "", "Redis answers again."),
    "store.unsafe": Entry("error", "problem", "Redis may lose accepted events: the setting to change is named.", True),
    "store.emptied": Entry(
        "error", "", "Redis has lost what it kept: run `jarai-receiver rebuild` to bring back what can be.", True
    ),
    "clock.set_back": Entry("warning", "seconds", "Redis's clock was set back; what was due has moved along with it."),
    "download.unexpected": Entry("error", "error", "A download raised what it never should; it is tried again.", True),
    "sweep.rang": Entry("debug", "queue", "Something due was not being worked on, so a worker was woken."),
    "production.forgotten": Entry("info", "", "RETENTION_DAYS after it settled; its files stay."),
    "library.said": Entry("warning", "logger, message, error", "A message of a library (uvicorn, RQ, redis)."),
}


def get() -> Logger:
    """The one logger."""
    return Logger()


@dataclass(frozen=True, slots=True)
class Logger:
    """Writes catalogued events. A name that is not in the catalogue raises KeyError: that is a defect."""

    def __call__(self, name: str, **fields: Any) -> None:
        level = CATALOGUE[name].level
        if _quick is None or not _quick.said(level, name, fields):
            structlog.get_logger().log(_LEVELS[level], name, **fields)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What this thread says within the block is written at its end, in one go: a system call instead of many."""
    texts: list[tuple[_Stream, str]] = []
    _held.texts = texts
    try:
        yield
    finally:
        _held.texts = None
        for stream in dict.fromkeys(stream for stream, _ in texts):
            stream.write("".join(text for its, text in texts if its is stream))
            stream.flush()


class _Held(threading.local):
    texts: list[tuple[_Stream, str]] | None = None


_held = _Held()
_quick: _Quick | None = None
_DEEPEST = 8
_EXPECTED = ("redis.exceptions", "rq.exceptions")  # Redis in trouble, and what RQ makes of it
_TRACE = "\nTraceback (most recent call last):\n"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Stream:
    """Where the lines go. A reader that has gone away must not end the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if _held.texts is not None:
            _held.texts.append((self, text))
            return
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        if _held.texts is None:
            with contextlib.suppress(OSError):
                self._stream.flush()


def configure(log_format: str, log_level: str, secrets: Sequence[str], stream: TextIO | None = None) -> None:
    """Set up the log of this process, libraries included. `log_format` empty: console on a terminal, else JSON."""
    global _quick
    target = stream or sys.stdout
    human = log_format == "console" or (not log_format and target.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=target.isatty())
        if human
        else structlog.processors.JSONRenderer(separators=(",", ":"))
    )
    out = _Stream(target)
    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            _Cleaner(tuple(secrets), human),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _in_reading_order,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[log_level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    _quick = None if human else _Quick(out, _LEVELS[log_level], tuple(secret.lower() for secret in secrets))
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler(logging.WARNING)]
    for name in ("rq", "rq.worker", "uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers[:], library.propagate = [], True
        library.setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class _Cleaner:
    """Takes the secrets out of every text of a line, however deep it lies, before anything is escaped or coloured.

    For a person, what could steer a terminal or look like another line is made visible.
    """

    secrets: tuple[str, ...]
    human: bool

    def __call__(self, logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {name: self._clean(value, name != "exception") for name, value in line.items()}

    def _clean(self, value: object, one_line: bool, depth: int = 0) -> object:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Mapping) and depth < _DEEPEST:
            return {str(self._clean(str(k), one_line)): self._clean(v, one_line, depth + 1) for k, v in value.items()}
        if isinstance(value, (list, tuple)) and depth < _DEEPEST:
            return [self._clean(part, one_line, depth + 1) for part in value]
        text = redact(str(value), self.secrets)
        if self.human and not text.isprintable():
            keep = "" if one_line else "\n"
            text = "".join(
                one if one.isprintable() or one in keep else one.encode("unicode_escape").decode() for one in text
            )
        return text


def _in_reading_order(logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how grave, what; then the rest. What says nothing is left out."""
    first = {name: line.pop(name) for name in ("timestamp", "level", "event")}
    return {**first, **{name: value for name, value in line.items() if value is not None}}


class _Quick:
    """Writes a line of JSON in which nothing needs care, just as structlog would, for a third of the price.

    Where nothing is escaped, one look at the whole line tells that no part of it holds a secret.
    """

    def __init__(self, stream: _Stream, least: int, secrets: Sequence[str]) -> None:
        self._stream, self._least, self._suspicious = stream, least, ("\\", *MARKS, *filter(None, secrets))

    def said(self, level: str, name: str, fields: Mapping[str, Any]) -> bool:
        """False: something in it needs care, and nothing was written."""
        if _LEVELS[level] < self._least:
            return True
        now = datetime.now(UTC).replace(tzinfo=None).isoformat()
        line: dict[str, object] = {"timestamp": now + "Z", "level": level, "event": name}
        for field, value in fields.items():
            if type(value) is str or type(value) is int:
                line[field] = value
            elif value is not None:
                return False
        try:
            text = to_json(line).decode()
        except ValueError:  # half a surrogate pair
            return False
        lowered = text.lower()
        if not text.isascii():
            return False
        for mark in self._suspicious:
            if mark in lowered:
                return False
        self._stream.write(text + "\n")
        self._stream.flush()
        return True


class _LibraryHandler(logging.Handler):
    """Brings what libraries log into ours, as `library.said`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message, mark, trace = record.getMessage().partition(_TRACE)  # RQ tells of a job's failure in its text
            fields: MutableMapping[str, Any] = {"logger": record.name}
            error = record.exc_info[1] if record.exc_info else None
            last = trace.rstrip().rpartition("\n")[2]
            if error is not None and type(error).__module__ in _EXPECTED:  # its name says enough, and it comes often
                fields["error"] = f"{type(error).__name__}: {error}"
            elif last.startswith(_EXPECTED):
                fields["error"] = last.partition("exceptions.")[2]
            else:
                message += mark + trace
                if record.exc_info:
                    fields["exc_info"] = record.exc_info
            fields["message"] = message
            level = logging.ERROR if record.levelno >= logging.ERROR else logging.WARNING
            structlog.get_logger().log(level, "library.said", **fields)
        except Exception:  # noqa: BLE001 - as every handler: a library that logs wrongly goes on working
            self.handleError(record)
