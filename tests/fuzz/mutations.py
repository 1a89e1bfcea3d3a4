"""Bodies as no JARAI would send them: real events, changed where it hurts, as text and as bytes.

A value is kept as the text that stands for it, so that there can be what no JSON library writes: doubled keys, lone
surrogates, numbers of a thousand digits, nesting without end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.store.making import event, listing, new_id


@dataclass(frozen=True)
class Raw:
    """JSON, or what looks like it, as it is to be written."""

    text: str


@dataclass(frozen=True)
class Pairs:
    """An object whose keys may occur twice."""

    items: tuple[tuple[Raw, Any], ...]


SAS = "https://jarai.blob.core.windows.net/out/film.mp4?sv=2024&se=2026-04-03T15%3A30%3A00Z&sig=s1gnature"
EXACT = 2**53 - 1
TEXTS = [
    "", " ", "x", "\x00", "\x7f", "\u0085", "\u2028\u2029", "\r\n", "\x1b[2K\x1b[1A", "\u202egpj.exe",
    "e\u0301" * 3, "ﬀ", "İı", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\ufffe\uffff",
    "Z" + "\u0335\u0321" * 40, "'\"`\\", "${jndi:ldap://x}", "{{7*7}}", "%n%s%00", "../../../../etc/passwd",
    "..\\..\\con.txt", "C:\\aux", "/dev/null", "~root", "nul.mp4 ", "x" * 201, "x" * 70_000,
    '{"timestamp": "x", "event": "forged"}', "null", "true", "0", "-1", "1e9", "NaN", "__proto__", "constructor",
    "Published", "Failed", "Queued", "Distributing", "published", "Undocumented", "webhook.test",
    "production.queued", "production.published", "production.failed", "deliverable.ready",
    "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "3F2C8C1E5A0B4E0E9A530C2F6F1D7B11", "{3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11}",
    "urn:uuid:3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11", "３f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11", "2026-04-03T14:30:00Z",
    "2026-04-03", "20260403T143000Z", "2026-W14-5", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59-14:00", "1969-12-31T23:59:59Z", "2026-02-30T00:00:00Z",
    "2026-04-03T24:00:00Z", "2026-04-03T14:30:60Z", "2026-04-03T14:30:00+99:99", SAS, SAS.replace("https", "http"),
    SAS + "#f", SAS + "&sig=2", "https://jarai.blob.core.windows.net", "https://[::1/x", "https://[]/",
    "https://x:99999999/a", "https://x:a/", "//x/y?sig=1", "file:///etc/passwd", "javascript:1",
    "http://169.254.169.254/?sig=1", "https://user:pass@jarai.blob.core.windows.net/x",
    "https://jarai.blob.core.windows.net\\@evil/x", "https://ｅvil。com/x",
    "https://jarai.blob.core.windows.net/%2e%2e/%00?sig=%ff&se=tomorrow",
    "https://a.blob.core.windows.net/\r\nX: y",
    "https://\udcff".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    "d41d8cd98f00b204e9800998ecf8427e", "1B2M2Y8AsgTpgAmY7PhCfg==",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
]  # fmt: skip
LITERALS = [
    "null", "true", "false", "0", "-0", "-0.0", "1", "-1", "1.0", "1.5", "1e2", "1E+2", "1e999", "-1e999", "1e-999",
    "01", "+1", ".5", "0x10", "1_000", "NaN", "Infinity", "-Infinity", "undefined", "'x'", str(EXACT),
    str(EXACT + 1), str(2**63), str(2**64), str(-(2**63) - 1), "9" * 308, "9" * 309, "7" * 4299, "7" * 4301,
    "7" * 70_000, "1." + "3" * 5000, "[]", "{}", "[[]]", "[null]", '[""]', '{"":null}', '{"a":1,"a":2}',
    '{"__proto__":{}}', "[" * 60 + "]" * 60, "[" * 190 + "]" * 190, "[" * 260 + "]" * 260, "[" * 5000 + "]" * 5000,
    "[" * 5000, '{"a":' * 180 + "1" + "}" * 180, '{"a":' * 5000 + "1" + "}" * 5000, "[" + "0," * 20_000 + "0]",
    "[" + "[]," * 20_000 + "0]", '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\x41"', '"\\',
    '"\t"', '"\\u00"', '"unfinished', "", ",", ":", "}", "]", "/* c */ 1", "1 2", "\ufeff1",
    f'{{"sasUrl":{json.dumps(SAS)},"fileSize":-1}}',
    f'[{{"sasUrl":{json.dumps(SAS)}}},{{"sasUrl":{json.dumps(SAS)},"id":"a"}}]',
    f'{{"sasUrl":{json.dumps(SAS)},"bytes":1e999,"size":"x","sha256":[],"md5":{{}},"expiresAt":5,"id":{{}}}}',
]  # fmt: skip
KEYS = [
    "eventId", "eventType", "productionId", "accountId", "timestamp", "sequenceNumber", "correlationId",
    "truncated", "data", "status", "errorCode", "errorMessage", "expiresAt", "deliverables", "sasUrl", "id",
    "deliverableId", "type", "fileName", "fileSizeBytes", "size", "md5", "sha256", "contentType", "step", "error",
    "sandbox", "", "\x00", "é",
]  # fmt: skip
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("production.queued", {"status": "Queued", "expiresAt": "2026-04-03T14:40:00Z"}),
    ("production.step.complete", {"step": 3, "name": "Script", "status": "Producing"}),
    ("production.published", {"status": "Published"}),
    ("production.failed", {"errorCode": "PRODUCTION_EXPIRED", "errorMessage": "not picked up", "status": "Failed"}),
    ("deliverable.ready", listing(SAS, SAS.replace("film", "other"))),
    ("production.rêverie", {"anything": [1, {"a": None}]}),
    ("webhook.test", {}),
]

values = st.one_of(
    st.sampled_from(TEXTS).map(lambda text: Raw(json.dumps(text))),
    st.sampled_from(LITERALS).map(Raw),
    st.text(max_size=20).map(lambda text: Raw(json.dumps(text))),
    st.integers().map(lambda number: Raw(str(number))),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: Raw(repr(number))),
)
keys = st.sampled_from(KEYS) | st.text(max_size=5)


def load(value: Any) -> Any:
    """A value as `json.loads` gives it, in the form in which it is changed here."""
    if isinstance(value, dict):
        return Pairs(tuple((Raw(json.dumps(name)), load(part)) for name, part in value.items()))
    if isinstance(value, list):
        return [load(part) for part in value]
    return Raw(json.dumps(value))


def render(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{name.text}:{render(part)}" for name, part in value.items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(render(part) for part in value) + "]"
    return str(value.text)


def places(value: Any, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """The path of every part, the whole left out."""
    parts = [part for _, part in value.items] if isinstance(value, Pairs) else value if isinstance(value, list) else []
    found = []
    for number, part in enumerate(parts):
        found += [(*path, number), *places(part, (*path, number))]
    return found


Change = Callable[[list[Any], int, bool], None]


def change(value: Any, path: tuple[int, ...], act: Change) -> Any:
    """`value` with `act` done to the list that holds the part at `path`. An object's parts are pairs."""
    is_object = isinstance(value, Pairs)
    parts: list[Any] = list(value.items if is_object else value)
    if len(path) == 1:
        act(parts, path[0], is_object)
    elif is_object:
        name, part = parts[path[0]]
        parts[path[0]] = (name, change(part, path[1:], act))
    else:
        parts[path[0]] = change(parts[path[0]], path[1:], act)
    return Pairs(tuple(parts)) if is_object else parts


def _drop(parts: list[Any], at: int, is_object: bool) -> None:
    del parts[at]


def _double(parts: list[Any], at: int, is_object: bool) -> None:
    parts.append(parts[at])


def _replace(by: Raw) -> Change:
    def act(parts: list[Any], at: int, is_object: bool) -> None:
        parts[at] = (parts[at][0], by) if is_object else by

    return act


def _add(key: str, by: Raw) -> Change:
    def act(parts: list[Any], at: int, is_object: bool) -> None:
        parts.insert(at, (Raw(json.dumps(key)), by) if is_object else by)

    return act


def _rename(key: str) -> Change:
    def act(parts: list[Any], at: int, is_object: bool) -> None:
        if is_object:
            parts[at] = (Raw(json.dumps(key)), parts[at][1])

    return act


changes: st.SearchStrategy[Change] = st.one_of(
    values.map(_replace),
    values.map(_replace),
    st.builds(_add, keys, values),
    keys.map(_rename),
    st.just(_drop),
    st.just(_double),
)


@dataclass(frozen=True)
class ByteChange:
    """What is done to the bytes: those from `at` on are replaced, as many as `cut` says (-1: all), by `put`."""

    at: int
    cut: int
    put: bytes

    def __call__(self, body: bytes) -> bytes:
        at = self.at % (len(body) + 1)
        return body[:at] + self.put + (b"" if self.cut < 0 else body[at + self.cut :])


BYTES = [
    b"", b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\n",
    b" " * 1000, b"{", b"}", b'"', b"\\", b",", b"\x1a", b"\x1f\x8b\x08\x00",
]  # fmt: skip
byte_changes = st.builds(
    ByteChange, st.integers(0, 5000), st.sampled_from([0, 1, 2, 20, -1]), st.sampled_from(BYTES) | st.binary(max_size=4)
)
encodings = st.sampled_from(["utf-8"] * 12 + ["utf-16", "utf-32-be", "utf-8-sig"])


@st.composite
def bodies(draw: st.DrawFn, production: str) -> bytes:
    """A body of an event of this production, more or less."""
    kind, data = draw(st.sampled_from(KINDS))
    number = draw(st.integers(0, 4) | st.sampled_from([EXACT, EXACT - 1, 10**6]))
    value = load(json.loads(event(production, number, kind, data=data, eventId=new_id())))
    for act in draw(st.lists(changes, max_size=4)):
        found = places(value)
        if found:
            value = change(value, found[draw(st.integers(0, 200)) % len(found)], act)
    body = render(value).encode(draw(encodings), "surrogatepass")
    for alter in draw(st.lists(byte_changes, max_size=2)) if draw(st.integers(0, 3)) == 0 else []:
        body = alter(body)
    return body
