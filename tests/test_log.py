"""The log: one line an event, valid whatever is in it, and no secret in any of them."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.exceptions import InvalidJobOperation

from service import log
from service.settings import load
from tests.store.making import logged

FORMATS = ["json", "console"]
API_KEY = "jarai_live_K3yK3yK3yK3y"
SETTINGS = load(
    {
        "JARAI_API_KEY": API_KEY,
        "JARAI_WEBHOOK_SECRETS": "c2lnbmluZy1zZWNyZXQ,YW5vdGhlci1zZWNyZXQ",
        "ADMIN_TOKEN": "adm1n-t0ken",
        "REDIS_URL": "redis://:r3dis-passw0rd@127.0.0.1:6379/0",
    },
    None,
)
ADDRESS = "https://jarai.blob.core.windows.net/out/a.mp4?sv=2024&sig=s1gnature%2Bx"
SECRETS = {
    "the API key": (f"key {API_KEY}", API_KEY),
    "another API key": ("now jarai_test_0therK3y0therK3y", "0therK3y"),
    "a signing secret": ("with c2lnbmluZy1zZWNyZXQ", "c2lnbmluZy1zZWNyZXQ"),
    "the second signing secret": ("with YW5vdGhlci1zZWNyZXQ", "YW5vdGhlci1zZWNyZXQ"),
    "the admin token": ("token=adm1n-t0ken;", "adm1n-t0ken"),
    "a bearer token": ("Authorization: Bearer 0ther-t0ken", "0ther-t0ken"),
    "the Redis password": ("AUTH r3dis-passw0rd", "r3dis-passw0rd"),
    "the address of Redis": ("redis://:0ther-passw0rd@10.0.0.1:6379/0", "0ther-passw0rd"),
    "a sasUrl": (f"GET {ADDRESS} failed", "s1gnature"),
    "a sasUrl without its host": ("Max retries exceeded with url: /out/a.mp4?sv=1&sig=s1gnature", "s1gnature"),
    "a sasUrl in JSON": (json.dumps({"sasUrl": ADDRESS}).replace("&", "\\u0026"), "s1gnature"),
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal, so that the console's colours are on."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
    structlog.reset_defaults()


def writing(log_format: str = "json", level: str = "info", stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    log.configure(log_format, level, SETTINGS.secrets, stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def raised(text: str) -> Exception:
    try:
        try:
            raise OSError(5, text)
        except OSError as error:
            raise ValueError(f"because of {text}") from error
    except ValueError as error:
        return error


def test_a_line_is_json_and_begins_with_when_how_grave_and_what() -> None:
    stream = writing()
    log.get()("webhook.accepted", event_id="e", sequence_number=7, correlation_id=None, times=[1, {"a": None}])
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "event_id", "sequence_number", "times"]
    assert (line["level"], line["event"], line["sequence_number"]) == ("info", "webhook.accepted", 7)
    assert datetime.fromisoformat(line["timestamp"]).tzname() == "UTC"


@pytest.mark.parametrize("name", log.CATALOGUE)
def test_every_event_is_written_with_the_level_of_the_catalogue(name: str) -> None:
    stream = writing(level="debug")
    log.get()(name)
    assert [(line["event"], line["level"]) for line in lines(stream)] == [(name, log.CATALOGUE[name].level)]


def test_an_event_that_is_not_in_the_catalogue_is_a_defect() -> None:
    with pytest.raises(KeyError):
        log.get()("something.else")


@pytest.mark.parametrize(("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_what_is_below_the_level_is_not_written(level: str, written: int) -> None:
    stream = writing(level=level)
    for name in ("sweep.rang", "webhook.accepted", "webhook.rejected", "store.unavailable"):
        log.get()(name)
    assert len(lines(stream)) == written


def test_what_json_does_not_know_is_written_as_text() -> None:
    stream = writing()
    log.get()("store.available", at=datetime(2026, 4, 3), error=ValueError("no"), raw=b"\xff", odd="\ud800\x00")  # noqa: DTZ001
    assert lines(stream)[0]["at"] == "2026-04-03 00:00:00"


@pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)])
def test_without_a_format_a_terminal_gets_the_console_and_all_else_json(stream: io.StringIO, is_json: bool) -> None:
    writing("", stream=stream)
    log.get()("store.available")
    assert stream.getvalue().startswith("{") is is_json


WAYS: dict[str, Callable[[str], None]] = {
    "a field": lambda text: log.get()("store.unavailable", error=text),
    "nested fields": lambda text: log.get()("store.unavailable", error={"a": [text, {text: (text,)}]}),
    "an exception as a field": lambda text: log.get()("store.unavailable", error=raised(text)),
    "a traceback": lambda text: log.get()("store.unavailable", exc_info=raised(text)),
    "a library's message": lambda text: logging.getLogger("urllib3.connectionpool").warning(text),
    "a library's arguments": lambda text: logging.getLogger("urllib3.connectionpool").warning("url %s", text),
    "a library's traceback": lambda text: logging.getLogger("rq.worker").error("job", exc_info=raised(text)),
    "a library's name": lambda text: logging.getLogger(text).error("said"),
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("log_format", FORMATS)
def test_no_secret_is_ever_written(log_format: str, way: str, secret: str) -> None:
    stream = writing(log_format)
    text, value = SECRETS[secret]
    WAYS[way](text)
    assert value not in stream.getvalue()
    assert "[redacted]" in stream.getvalue()
    assert log_format == "console" or len(lines(stream)) == 1


@pytest.mark.parametrize(("text", "value"), SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("bare", [True, False])
def test_no_secret_hides_between_the_colours_of_a_terminal(text: str, value: str, bare: bool) -> None:
    stream = writing("console", stream=Terminal())
    log.get()("store.unavailable", error=text.split()[-1] if bare and "Bearer" not in text else text)
    assert value not in stream.getvalue()


@pytest.mark.parametrize("secret", ['quo"ted-t0ken', "back\\slash-t0ken", "pässw0rd"])
@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("way", ["a field", "nested fields", "an exception as a field", "a traceback"])
def test_a_secret_is_found_however_it_is_escaped(log_format: str, way: str, secret: str) -> None:
    stream = io.StringIO()
    log.configure(log_format, "info", [secret], stream)
    WAYS[way](f"a {secret} b")
    escaped = (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])
    assert not [one for one in escaped if one in stream.getvalue()]


@pytest.mark.parametrize("secret", ["2026", "8000", "true", 'a", "b'])
def test_a_line_stays_json_whatever_a_secret_looks_like(secret: str) -> None:
    stream = io.StringIO()
    log.configure("json", "info", [secret], stream)
    log.get()("process.ended", process=secret, pid=18000, code=8000, flag=True)
    assert lines(stream)[0]["level"] == "warning"


BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("line_break", BREAKS, ids=[*map(repr, BREAKS)])
@pytest.mark.parametrize("way", ["a field", "nested fields", "a library's message", "a library's arguments"])
@pytest.mark.parametrize("log_format", FORMATS)
def test_a_line_break_in_a_field_forges_no_second_line(log_format: str, way: str, line_break: str) -> None:
    stream = writing(log_format)
    WAYS[way](f"x{line_break}forged")
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("control", ["\x1b[2K\x1b[1A", "\x9b2K", "\x08", "\x07"], ids=repr)
def test_no_field_steers_the_terminal(log_format: str, control: str) -> None:
    stream = writing(log_format)
    log.get()("store.unavailable", error=f"x{control}y")
    assert control not in stream.getvalue()


MARKED = re.compile("://|sig|jarai_|bearer", re.IGNORECASE)


@given(st.dictionaries(st.text(min_size=1).map("f_".__add__), st.text() | st.integers() | st.lists(st.text())))
@examples(derandomize=True, database=None, deadline=None)
def test_any_fields_make_one_line_of_json(fields: dict[str, Any]) -> None:
    stream = writing()
    log.get()("store.available", **fields)
    (line,) = lines(stream)
    assert set(line) - {"timestamp", "level", "event"} == set(fields)
    if not MARKED.search(str(fields)):
        assert {name: line[name] for name in fields} == fields


class Counted(io.StringIO):
    """A stream that counts how often it was written to."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


@pytest.mark.parametrize("log_format", FORMATS)
def test_lines_that_are_said_together_are_written_in_one_go_and_in_order(log_format: str) -> None:
    stream = Counted()
    writing(log_format, stream=stream)

    def interrupted() -> None:
        with log.together():
            for number in range(3):
                log.get()("process.started", process="web", pid=number, odd=["a list", "is", "rendered", "otherwise"])
                log.get()("process.started", process="worker", pid=number)
            assert stream.getvalue() == ""
            other = threading.Thread(target=lambda: log.get()("store.available"))
            other.start()
            other.join()
            assert (stream.writes, "store.available" in stream.getvalue()) == (1, True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert stream.writes == 2
    assert re.findall("web|worker", stream.getvalue()) == ["web", "worker"] * 3
    log.get()("store.available")
    assert stream.writes == 3


def test_what_a_library_says_is_brought_in_from_a_warning_on() -> None:
    stream = writing()
    for library in ("urllib3.connectionpool", "uvicorn.error", "rq.worker", "redis"):
        logging.getLogger(library).debug("quiet")
        logging.getLogger(library).info("quiet")
        logging.getLogger(library).warning("said %s", library)
    assert [(line["event"], line["logger"], line["message"]) for line in lines(stream)] == [
        ("library.said", library, f"said {library}")
        for library in ("urllib3.connectionpool", "uvicorn.error", "rq.worker", "redis")
    ]


def test_a_library_with_a_level_of_its_own_does_no_harm() -> None:
    stream = writing()
    logging.getLogger("library").log(35, "between warning and error")
    assert lines(stream)[0]["message"] == "between warning and error"


def test_a_library_that_logs_wrongly_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    """As with the standard library's own handlers: the mistake is not thrown at the code that was working."""
    writing()
    logging.getLogger("library").warning("%d", "not a number")
    capsys.readouterr()


def test_set_up_twice_each_line_is_written_once() -> None:
    writing()
    stream = writing()
    logging.getLogger("library").warning("said")
    log.get()("store.available")
    assert len(lines(stream)) == 2


def test_a_library_that_met_a_redis_in_trouble_says_so_in_one_line_and_of_a_defect_everything() -> None:
    with logged() as stream:
        for error in (RedisConnectionError("cut"), InvalidJobOperation("gone"), KeyError("a defect")):
            try:
                raise error
            except type(error):
                logging.getLogger("rq.worker").error("job failed\n%s", traceback.format_exc())
                logging.getLogger("rq.worker").exception("job failed")
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    errors = ["ConnectionError: cut"] * 2 + ["InvalidJobOperation: gone"] * 2
    assert [entry["error"] for entry in told[:4]] == errors
    assert [entry["message"] for entry in told[:4]] == ["job failed"] * 4
    assert "Traceback" not in str(told[:4])
    assert all("a defect" in str(entry) and "Traceback" in str(entry) for entry in told[4:])
