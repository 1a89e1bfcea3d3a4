"""The `.env` file, written: one variable at a time, everything else in it untouched, readable to its owner alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from service.core.errors import SettingsError

DOTENV = Path(".env")
_BARE = re.compile(r"[A-Za-z0-9_.,:/=+@-]+")
# A line as python-dotenv reads it: what stands before the value, the value, and what stands behind it.
_LINE = re.compile(
    r"""(?P<before>\s*(?:export[^\S\r\n]+)?)(?P<name>'[^']+'|[^=\#\s]+)(?:[^\S\r\n]*=(?:[^\S\r\n]*(?=[^\s\#]))?)?
        (?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?!['"])(?:(?![^\S\r\n]+\#|[^\S\r\n]*(?:[\r\n]|$))[^\r\n])*)
        (?P<after>.*)""",
    re.DOTALL | re.VERBOSE,
)


def read(name: str, path: Path = DOTENV) -> str:
    """What the file says of this variable, and only the file. Raises SettingsError."""
    try:
        return dotenv_values(path, interpolate=False).get(name) or ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read: {type(error).__name__}.") from None


def save(name: str, value: str | Callable[[str], str], path: Path = DOTENV) -> None:
    """Set the variable where it stands, or at the end; an empty value leaves `NAME=`. Raises SettingsError.

    `value` may be made from the one before. Two who save at once wait for each other.
    """
    try:
        place = path.resolve()
        with _alone_in(place.parent):
            before = place.read_bytes().decode() if place.exists() else ""
            new = value if isinstance(value, str) else value(_values(before).get(name) or "")
            after = _changed(before, f"{name}={_quoted(new)}", name)
            if _values(after) != _values(before) | {name: new}:  # a quote that does not end swallows what follows
                raise SettingsError(f"{path} has a line that can't be read: mend it, and set {name} there yourself.")
            _replace(place, after)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise SettingsError(f"{path} could not be written ({reason}): set {name} there yourself.") from None


def check_writable(path: Path = DOTENV) -> None:
    """Raises SettingsError where nothing could be saved: better before there is something to save."""
    try:
        place = path.resolve()
        handle, temporary = tempfile.mkstemp(prefix=f"{place.name}.", dir=place.parent)
        os.close(handle)
        os.unlink(temporary)
    except OSError as error:
        raise SettingsError(f"{path} can't be written ({error.strerror}): --save needs that.") from None


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _changed(text: str, line: str, name: str) -> str:
    changed, found = "", False
    for binding in parse_stream(StringIO(text, newline="")):
        original = binding.original.string
        match = _LINE.fullmatch(original) if binding.key == name else None
        changed += f"{match['before']}{line}{match['after']}" if match else original
        found = found or match is not None
    if found:
        return changed
    end = "\r\n" if "\r\n" in changed else "\n"
    return f"{changed}{'' if not changed or changed.endswith(end) else end}{line}{end}"


def _values(text: str) -> dict[str, str | None]:
    return dict(dotenv_values(stream=StringIO(text, newline=""), interpolate=False))


def _quoted(value: str) -> str:
    if not value or _BARE.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _replace(place: Path, text: str) -> None:
    """The whole file or none of it, whenever the machine stops."""
    handle, temporary = tempfile.mkstemp(prefix=f"{place.name}.", dir=place.parent)  # mode 600
    try:
        with open(handle, "wb") as file:
            with contextlib.suppress(FileNotFoundError, PermissionError):  # root may save for the service's own user
                owner = place.stat()
                os.fchown(handle, owner.st_uid, owner.st_gid)
            os.fchmod(handle, stat.S_IRUSR | stat.S_IWUSR)
            file.write(text.encode())
            file.flush()
            os.fsync(handle)
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
