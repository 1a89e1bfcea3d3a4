"""Deliverables: what JARAI lists, how one is told from another, and what its file is called.

CONTRACT [seed]: a deliverable has a type and a `sasUrl` that is valid for one hour. [open]: everything else (an id,
a file name, a size, a checksum, an expiry) is used where it is there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from service.core.events import LARGEST, parse_instant

LINK_LIFETIME = timedelta(hours=1)  # CONTRACT [seed]
# An instant beyond these is nonsense, but no reason to stumble: not even when it is moved to our clock.
_EARLIEST, _LATEST = datetime(1000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
_DEEPEST = 6
_MOST_LISTED = 10_000

# Most of what JARAI makes is small; what is, or may be, larger must not make the rest wait.
_SMALL_BYTES = 16 * 1024 * 1024
_BIG_TYPES = ("video", "audio")
_BIG_ENDINGS = ("mp4", "m4v", "mov", "webm", "mkv", "avi", "m4a", "wav", "mp3", "aac", "flac", "zip")

State = Literal["wanted", "stored", "failed"]
# Wanted only to see whether it is what lies there already: by its head where that proves it, or byte by byte.
Compare = Literal["", "head", "bytes"]


@dataclass(frozen=True, slots=True)
class Listed:
    """One deliverable as JARAI listed it. `url` is a secret; `key` is safe in names, logs and Redis keys.

    `place` stands for the address without its query: another place may mean another content.
    """

    key: str
    id: str
    type: str
    url: str
    link_expires_at: datetime
    file_name: str = ""
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class Deliverable:
    """One deliverable as this service knows it, or one version of it. Digests are lower-case hex.

    `file` is relative to the manifest. `bytes`, `md5` and `sha256` are what JARAI announced until the file is stored,
    and what was stored from then on. `of` is the key of the first version, empty for that one; `listed_at` is when
    JARAI made the list that brought this version, by its clock.
    """

    key: str
    id: str
    type: str
    file: str
    state: State = "wanted"
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    stored_at: datetime | None = None
    link_expires_at: datetime | None = None
    next_at: datetime | None = None
    attempts: int = 0  # failures in a row, of any kind
    corrupted: int = 0  # of these: wrong bytes
    expired: int = 0  # of these: an address that was not valid (any more)
    error: str | None = None
    version: int = 1
    of: str = ""
    compare: Compare = ""
    place: str = ""
    etag: str | None = None
    listed_at: datetime | None = None

    @property
    def first(self) -> str:
        """The key that all versions share: that of the first."""
        return self.of or self.key

    @property
    def small(self) -> bool:
        """Whether it is fetched in next to no time; where JARAI does not say how large it is, its kind tells."""
        if self.bytes is not None:
            return self.bytes <= _SMALL_BYTES
        return not (self.type.lower().startswith(_BIG_TYPES) or self.file.rpartition(".")[2] in _BIG_ENDINGS)


def read_list(answer: object, listed_at: datetime) -> tuple[Listed, ...]:
    """Every deliverable in an event's data or in an answer of the API, wherever it stands in there.

    The shape around the addresses is [open], so each object with a `sasUrl` counts. Never raises: what can't be
    read is left out. `listed_at` is when JARAI made the list: an address without an expiry is good for one hour.
    """
    items = list(islice(_objects_with_address(answer, _DEEPEST), _MOST_LISTED))
    places: dict[str, set[str]] = {}
    for item in items:
        places.setdefault(_identity(item), set()).add(_bare(item["sasUrl"]))
    listed = (_read_one(item, listed_at, len(places[_identity(item)]) > 1) for item in items)
    return tuple({one.key: one for one in listed}.values())


def wanted(listed: Listed, listed_at: datetime | None = None) -> Deliverable:
    """A newly listed deliverable, to be fetched."""
    return Deliverable(
        key=listed.key,
        id=listed.id,
        type=listed.type,
        file=safe_name(listed),
        bytes=listed.bytes,
        md5=listed.md5,
        sha256=listed.sha256,
        place=listed.place,
        listed_at=listed_at,
    )


def newest_versions(known: Iterable[Deliverable]) -> dict[str, Deliverable]:
    """The newest version of each deliverable, stored or not, by the key that its versions share."""
    return {one.first: one for one in sorted(known, key=lambda one: one.version)}


def current_files(known: Iterable[Deliverable]) -> frozenset[str]:
    """The keys of the files that are the newest stored version of their deliverable."""
    return frozenset(one.key for one in newest_versions(one for one in known if one.state == "stored").values())


def next_version(one: Deliverable, compare: Compare) -> Deliverable:
    """The version after this one, to be fetched into a file of its own."""
    number = one.version + 1
    key = _key(f"{one.first} {number}")
    return Deliverable(
        key=key,
        id=one.id,
        type=one.type,
        file=_of_version(one.file, number, key),
        version=number,
        of=one.first,
        compare=compare,
    )


def listed_again(one: Deliverable, listed: Listed, listed_at: datetime) -> Deliverable:
    """A file that is still to come, as JARAI lists it now. It keeps its name: somebody may be fetching it."""
    return replace(
        one,
        link_expires_at=listed.link_expires_at,
        bytes=listed.bytes,
        md5=listed.md5,
        sha256=listed.sha256,
        place=listed.place,
        listed_at=listed_at,
    )


def contradicts(one: Deliverable, listed: Listed) -> bool:
    """Whether JARAI announces other content than this one has."""
    said = ((one.sha256, listed.sha256), (one.md5, listed.md5), (one.bytes, listed.bytes))
    return any(None not in pair and pair[0] != pair[1] for pair in said)


def safe_name(listed: Listed) -> str:
    """`Type_name_key.ext`: says what it is, is unique by its key, and can't leave its folder on any platform."""
    given = listed.file_name or unquote(_bare(listed.url).rpartition("/")[2])
    stem, dot, extension = given.rpartition(".")
    if not dot or not re.fullmatch(r"[A-Za-z0-9]{1,10}", extension):
        stem, extension = given, ""
    parts = [_slug(listed.type, 40) or "Deliverable", _slug(stem, 60), listed.key]
    return "_".join(part for part in parts if part) + (f".{extension.lower()}" if extension else "")


def _objects_with_address(value: object, depth: int) -> Iterator[Mapping[str, Any]]:
    if depth == 0:
        return
    if isinstance(value, Mapping):
        url = value.get("sasUrl")
        if isinstance(url, str) and _bare(url):
            yield value
            return
        for part in value.values():
            yield from _objects_with_address(part, depth - 1)
    elif isinstance(value, list):
        for part in value:
            yield from _objects_with_address(part, depth - 1)


def _read_one(item: Mapping[str, Any], listed_at: datetime, shared_id: bool) -> Listed:
    """`shared_id`: other files carry the same id, so only the address tells them apart."""
    url = item["sasUrl"]
    identity = _identity(item)
    return Listed(
        key=_key(f"{identity} {_bare(url)}" if shared_id else identity),
        id=_visible(identity[:300]),
        type=_visible(_first_text(item, "type", "deliverableType")[:100]) or "Deliverable",
        url=url,
        link_expires_at=_link_expiry(item, url, listed_at),
        file_name=_first_text(item, "fileName", "filename", "name")[:300],
        bytes=_size(item),
        md5=_digest(item, 16, "md5", "contentMd5", "contentMD5", "checksum"),
        sha256=_digest(item, 32, "sha256", "contentSha256", "checksumSha256", "checksum"),
        place=_key(_bare(url)),
    )


def _identity(item: Mapping[str, Any]) -> str:
    return _first_text(item, "deliverableId", "id") or _bare(item["sasUrl"])


def _bare(url: str) -> str:
    """The address without its query and without a password, which are secrets."""
    return re.sub(r"^([^/]*//)[^/]*@", r"\1", url.partition("#")[0].partition("?")[0])


def _key(identity: str) -> str:
    return hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _first_text(item: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = item.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _visible(text: str) -> str:
    """As it is shown: nothing that could steer a terminal, look like another line, or not be written as UTF-8."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)


def _size(item: Mapping[str, Any]) -> int | None:
    for name in ("sizeBytes", "sizeInBytes", "fileSizeBytes", "contentLength", "bytes", "size"):
        value = item.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST:
            return value
    return None


def _digest(item: Mapping[str, Any], length: int, *names: str) -> str | None:
    """A checksum in hex, from hex or base64, with or without an `algorithm:` before it; None when it is none."""
    for name in names:
        value = _first_text(item, name).rpartition(":")[2]
        digest = decode_digest(value, length)
        if digest is not None:
            return digest
    return None


def decode_digest(value: str, length: int) -> str | None:
    """A digest of `length` bytes as lower-case hex, from hex or base64; None when the text is no such digest."""
    if re.fullmatch(rf"[0-9a-fA-F]{{{2 * length}}}", value):
        return value.lower()
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw.hex() if len(raw) == length else None


def _link_expiry(item: Mapping[str, Any], url: str, listed_at: datetime) -> datetime:
    """The earlier of what JARAI says, what the address itself says (`se`), and one hour."""
    stated = [_first_text(item, "expiresAt", "sasExpiresAt", "sasUrlExpiresAt")]
    with suppress(ValueError):  # an address that can't be read is refused when it is used
        stated += parse_qs(urlsplit(url).query, max_num_fields=50).get("se", [])[:1]
    expiries = [min(listed_at, _LATEST) + LINK_LIFETIME]
    for text in stated:
        try:
            expiries.append(parse_instant(text))
        except ValueError:
            continue
    return max(min(expiries), _EARLIEST)


def _of_version(file: str, number: int, key: str) -> str:
    stem, dot, extension = file.partition(".")
    return f"{re.sub('(-v[0-9]+)?_[0-9a-f]{16}$', '', stem)}-v{number}_{key}{dot}{extension}"


def _slug(text: str, longest: int) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]+", "-", plain)[:longest].strip("-")
