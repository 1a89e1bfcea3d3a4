"""What a person at a terminal gets to see, and how a command comes by what it works with.

What runs and fetches lives in `workers` and is found by name, so that `service` never imports it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pkgutil import resolve_name
from typing import Any

import click
from click.shell_completion import CompletionItem
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from service import envfile, log, runtime
from service.core.errors import InvalidField, JaraiError, ReceiverError, SettingsError
from service.core.redaction import redact
from service.core.why import span
from service.runtime import Runtime
from service.settings import in_environment, load
from service.store import productions

_NEVER_FOLDED = ("production", "id", "account", "status", "avatars", "file", "address", "may be")
_LEAST_WIDTH, _WIDTH_OF_A_PIPE = 110, 250
_MOST_COMPLETED = 200

AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")


class Group(click.Group):
    """Turns what went wrong into one plain sentence on stderr and exit code 1; wrong usage stays 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except JaraiError as error:
            raise click.ClickException(plain(error.sentence)) from None
        except ReceiverError as error:
            raise click.ClickException(str(error)) from None
        except RedisError as error:
            raise click.ClickException(
                f"Redis does not answer at {_redis_place()} ({type(error).__name__}): start it (`jarai-receiver up` "
                "brings its own), set REDIS_URL, or run this in the folder where `up` runs."
            ) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # who read it has gone: click ends in silence
                raise
            reason = error.strerror or type(error).__name__
            if error.filename is not None:
                raise click.ClickException(f"{error.filename}: {reason}") from None
            _close_stdout()
            raise click.ClickException(f"{reason}: nothing more can be shown") from None


class _ProductionId(click.ParamType[str]):
    """A production's id; a shell completes those that are known here."""

    name = "production id"

    def shell_complete(self, context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            found, _ = productions.newest(Runtime(load()).redis, _MOST_COMPLETED)
        except (ReceiverError, RedisError):  # at the prompt there is nobody to tell
            return []
        return [CompletionItem(one.production_id) for one in found if one.production_id.startswith(incomplete)]


PRODUCTION = click.argument("production_id", type=_ProductionId())


def runtime_here() -> Runtime:
    """The runtime for a command that answers a person: its log goes to stderr, and only where something is wrong."""
    settings = load()
    log.configure("console", "error", settings.secrets, sys.stderr)
    return Runtime(settings)


@contextmanager
def valid(options: Mapping[str, str]) -> Iterator[None]:
    """What is checked within is a person's input: a wrong field is wrong usage of its option."""
    try:
        yield
    except InvalidField as error:
        raise click.BadParameter(error.problem, param_hint=options[error.field]) from None


def reveal(secret: str, name: str, saved: Callable[[str], str] | None) -> None:
    """Show what is told once, alone on stdout. It is saved first, so that it is safe whatever becomes of stdout.

    `saved`: what the variable of this name in `.env` becomes, of what it was; None: nothing is saved. Raises
    SettingsError, without the secret, when that can't be done; it has been shown all the same.
    """
    problem: SettingsError | None = None
    if saved is not None:
        try:
            save(name, saved)
        except SettingsError as error:
            problem = error
    click.echo(secret)
    if problem is not None:
        raise problem


def save(name: str, value: str | Callable[[str], str], done: str = "saved as {} in .env") -> None:
    """Write a secret into `.env`, and say so. Raises SettingsError, without the value, when that can't be done."""
    envfile.save(name, value)
    click.echo(done.format(name), err=True)
    if in_environment(name):
        click.echo(f"{name} is also set in the environment, which wins over .env: change it there, too.", err=True)


def workers(name: str) -> Any:
    """Something of `workers`, by its name."""
    found: Callable[..., Any] = resolve_name(name)
    return found


def print_json(value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo("".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text))


def plain(value: object) -> str:
    """Text for a terminal: what came from outside can't move the cursor or forge a line."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def moment(when: datetime | str | None, now: datetime) -> str:
    """A point in time as a person here reads it: `14:02:11, 3 min ago`. `when` may be ISO 8601."""
    if not when:
        return ""
    then = datetime.fromisoformat(when) if isinstance(when, str) else when
    return f"{clock(then, now)}, {relative(then, now)}"


def relative(when: datetime | str, now: datetime) -> str:
    """How long ago, or in how long."""
    ahead = (datetime.fromisoformat(when) if isinstance(when, str) else when) - now
    return f"in {span(ahead)}" if ahead > timedelta(seconds=1) else f"{span(-ahead)} ago"


def clock(then: datetime, now: datetime) -> str:
    """The local time of an instant, with its day where that is not today's."""
    local = then.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d %H:%M}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """A table, or the sentence `empty` where there are no rows."""
    if not rows:
        if empty:
            click.echo(empty)
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold", no_wrap=column in _NEVER_FOLDED)
    for row in rows:
        shown.add_row(*(_cell(cell).replace("[", r"\[") for cell in row))
    console = Console()
    width = max(console.width, _LEAST_WIDTH) if console.is_terminal else _WIDTH_OF_A_PIPE
    Console(width=width).print(shown)


def _close_stdout() -> None:
    """What is still to be written can't be: else the end of the process would say so in its own words."""
    with suppress(OSError, ValueError):  # a stream that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cell(cell: object) -> str:
    """A tuple is several lines of one cell; nothing else is, whatever it holds."""
    return "\n".join(map(plain, cell)) if isinstance(cell, tuple) else plain(cell)


def _redis_place() -> str:
    try:
        return redact(runtime.redis_url(load()))
    except ReceiverError:
        return "REDIS_URL"
