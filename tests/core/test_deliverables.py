"""What JARAI lists, how one file is told from another, and what it is called."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.core.deliverables import LINK_LIFETIME, Listed, decode_digest, read_list, safe_name, wanted
from tests.core.given import START, item, json_values, one

MD5 = hashlib.md5(b"film").hexdigest()
SHA256 = hashlib.sha256(b"film").hexdigest()


def test_a_deliverable_is_read_with_everything_that_is_told() -> None:
    listed = one(name="v-1", fileName="My film.mp4", sizeBytes=5, md5=MD5, sha256=SHA256)
    assert (listed.id, listed.type, listed.file_name, listed.bytes) == ("v-1", "Video", "My film.mp4", 5)
    assert (listed.md5, listed.sha256) == (MD5, SHA256)
    assert listed.link_expires_at == START + LINK_LIFETIME
    assert re.fullmatch("[0-9a-f]{16}", listed.key)


@pytest.mark.parametrize(
    "answer",
    [
        [item()],
        item(),
        {"deliverables": [item()]},
        {"data": {"items": [{"file": item()}]}},
        {"video": item(), "count": 1},
        [None, 7, "text", [], {}, {"sasUrl": None}, {"sasUrl": ""}, {"sasUrl": "?sig=x"}, item()],
    ],
)
def test_a_deliverable_is_found_wherever_it_stands(answer: object) -> None:
    assert [listed.id for listed in read_list(answer, START)] == ["a"]


@pytest.mark.parametrize("answer", [None, 7, "https://h/p?sig=x", [], {}, {"a": {"b": {"c": {"d": {"e": [item()]}}}}}])
def test_where_nothing_is_listed_the_list_is_empty(answer: object) -> None:
    assert read_list(answer, START) == ()


def test_a_list_without_end_is_cut() -> None:
    assert len(read_list([{"sasUrl": f"https://h/{number}"} for number in range(10_050)], START)) == 10_000


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"id": "x"}, "x"), ({"deliverableId": "y", "id": "x"}, "y"), ({"id": " "}, "bare"), ({"id": 7}, "bare")],
)
def test_an_id_is_used_where_there_is_one_else_the_address_without_its_query(fields: dict[str, Any], name: str) -> None:
    bare = "https://h/p/film.mp4"
    listed = read_list({"sasUrl": f"{bare}?sig=s3cr3t#f", **fields}, START)[0]
    assert listed.id == (bare if name == "bare" else name)


@pytest.mark.parametrize("mark", ["\x00", "\n", "\x1b", "\x85", "\u2028", "\u202e", "\ud800"])
def test_what_is_shown_of_a_file_can_not_steer_a_terminal_or_look_like_another_line(mark: str) -> None:
    first, second = one(id=f"a{mark}b", type=f"Vid{mark}eo"), one(id="a b", type="Video")
    assert (first.id, first.type) == ("a\ufffdb", "Vid\ufffdeo")
    assert first.key != second.key


def test_a_password_in_an_address_is_no_part_of_an_id() -> None:
    assert read_list({"sasUrl": "https://u:s3cr3t@h/p/film.mp4?sig=x"}, START)[0].id == "https://h/p/film.mp4"


def test_a_fresh_address_of_the_same_file_is_the_same_deliverable() -> None:
    first, second = one(signature="one"), one(signature="two")
    assert first.key == second.key
    assert first.url != second.url


def test_the_later_address_wins_where_a_file_is_listed_twice() -> None:
    assert [listed.url[-3:] for listed in read_list([item(signature="one"), item(signature="two")], START)] == ["two"]


def test_one_id_for_two_files_makes_two_deliverables() -> None:
    both = read_list([item("a"), item("a", sasUrl="https://h/other.mp4?sig=x")], START)
    assert len({listed.key for listed in both}) == 2


def test_the_order_of_a_list_does_not_change_what_a_file_is_called() -> None:
    files = [item("a", sasUrl=f"https://h/{name}.mp4?sig=x") for name in ("wide", "tall", "square")]
    names = [{listed.url: listed.key for listed in read_list(list(order), START)} for order in permutations(files)]
    assert all(name == names[0] for name in names)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"size": 7}, 7),
        ({"bytes": 0}, 0),
        ({"contentLength": 2**40}, 2**40),
        ({"sizeBytes": -1, "size": 3}, 3),
        ({"size": "7"}, None),
        ({"size": 7.5}, None),
        ({"size": True}, None),
        ({"size": 2**53 - 1}, 2**53 - 1),
        ({"size": 2**53}, None),
        ({"size": 10**300, "bytes": 5}, 5),
    ],
)
def test_a_size_is_a_whole_number_or_nothing(fields: dict[str, Any], expected: int | None) -> None:
    assert one(**fields).bytes == expected


@pytest.mark.parametrize(
    ("fields", "md5", "sha256"),
    [
        ({"md5": MD5.upper()}, MD5, None),
        ({"contentMd5": base64.b64encode(bytes.fromhex(MD5)).decode()}, MD5, None),
        ({"checksum": f"md5:{MD5}"}, MD5, None),
        ({"checksum": f"sha256:{SHA256}"}, None, SHA256),
        ({"checksum": SHA256}, None, SHA256),
        ({"sha256": base64.b64encode(bytes.fromhex(SHA256)).decode()}, None, SHA256),
        ({"md5": "not a digest", "checksum": MD5}, MD5, None),
        ({"md5": "ä", "sha256": 7}, None, None),
    ],
)
def test_a_checksum_is_known_by_its_length(fields: dict[str, Any], md5: str | None, sha256: str | None) -> None:
    listed = one(**fields)
    assert (listed.md5, listed.sha256) == (md5, sha256)


@given(st.binary(min_size=16, max_size=16))
def test_a_digest_is_the_same_in_hex_and_in_base64(raw: bytes) -> None:
    assert decode_digest(raw.hex(), 16) == decode_digest(base64.b64encode(raw).decode(), 16) == raw.hex()


@pytest.mark.parametrize(
    ("fields", "minutes"),
    [
        ({}, 60),
        ({"expiresAt": "2026-04-03T14:50:00Z"}, 20),
        ({"sasExpiresAt": "2026-04-03T14:45:00Z"}, 15),
        ({"expiresAt": "2026-04-04T14:45:00Z"}, 60),
        ({"expiresAt": "soon"}, 60),
        ({"sasUrl": "https://h/p?se=2026-04-03T14%3A40%3A00Z&sig=x"}, 10),
        ({"sasUrl": "https://h/p?se=2026-04-03T14%3A40%3A00Z&sig=x", "expiresAt": "2026-04-03T14:35:00Z"}, 5),
        ({"sasUrl": "https://h/p?se=tomorrow&sig=x"}, 60),
        ({"sasUrl": "https://[h/p?se=x"}, 60),
        ({"sasUrl": "https://h/p?" + "&".join(["a=1"] * 60)}, 60),
    ],
)
def test_an_address_is_good_until_the_earliest_of_what_is_said(fields: dict[str, Any], minutes: int) -> None:
    assert one(**fields).link_expires_at == START + timedelta(minutes=minutes)


@pytest.mark.parametrize("listed_at", [datetime.min.replace(tzinfo=UTC), START, datetime.max.replace(tzinfo=UTC)])
@pytest.mark.parametrize("expiry", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", None])
def test_an_expiry_out_of_its_time_can_still_be_moved_to_another_clock(listed_at: datetime, expiry: str | None) -> None:
    [listed] = read_list(item(expiresAt=expiry), listed_at)
    assert listed.link_expires_at - timedelta(days=300_000) < listed.link_expires_at + timedelta(days=300_000)


deliverable_like = st.dictionaries(
    st.sampled_from(
        ["sasUrl", "id", "deliverableId", "type", "fileName", "size", "bytes", "md5", "checksum", "sha256", "expiresAt"]
    ),
    json_values | st.text().map("https://h/".__add__) | st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
)


@given(
    st.recursive(
        json_values | deliverable_like,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    st.datetimes(timezones=st.just(UTC)),
)
@example(item(), datetime.max.replace(tzinfo=UTC))
@example({"sasUrl": "https://[h/p"}, START)
@example({"sasUrl": "\ud800", "id": "\udfff", "type": "\ud800"}, START)
def test_no_answer_makes_the_reader_raise_and_each_file_in_it_gets_a_name(answer: object, moment: datetime) -> None:
    listed = read_list(answer, moment)
    assert len({entry.key for entry in listed}) == len(listed)
    assert all(wanted(entry).file for entry in listed)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "Video_a_{key}.mp4"),
        ({"fileName": "Mein schöner Film.MP4"}, "Video_Mein-schoner-Film_{key}.mp4"),
        ({"fileName": "../../etc/passwd"}, "Video_etc-passwd_{key}"),
        ({"fileName": "C:\\CON.txt", "type": "NUL"}, "NUL_C-CON_{key}.txt"),
        ({"fileName": ".hidden"}, "Video_{key}.hidden"),
        ({"fileName": "archive.tar.gz"}, "Video_archive-tar_{key}.gz"),
        ({"fileName": "strange.e x"}, "Video_strange-e-x_{key}"),
        ({"type": "日本語", "fileName": "日本語.mp4"}, "Deliverable_{key}.mp4"),
        ({"sasUrl": "https://h/%2e%2e%2fa%20b.vtt?sig=x"}, "Video_a-b_{key}.vtt"),
        ({"sasUrl": "https://h/?sig=x"}, "Video_{key}"),
    ],
)
def test_a_file_name_says_what_it_is(fields: dict[str, Any], name: str) -> None:
    listed = one(**fields)
    assert safe_name(listed) == name.format(key=listed.key)


RESERVED_ON_WINDOWS = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
names = st.text() | st.text(alphabet='./\\:~ \x00\n*?"<>|conCON%2eäß日.mp4', max_size=400)


@given(names, names, names, st.binary(min_size=1, max_size=8))
@example("NUL", "CON.txt", "..", b"k")
@example("", "", "[", b"k")
def test_no_text_makes_a_name_that_leaves_its_folder(kind: str, given_name: str, path: str, identity: bytes) -> None:
    key = hashlib.blake2b(identity, digest_size=8).hexdigest()
    url = f"https://{path}" if path.startswith("[") else f"https://h/{path}"
    name = safe_name(Listed(key, "id", kind, url, START, file_name=given_name))
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[a-z0-9]{1,10})?", name)
    assert key in name
    assert len(name.encode()) <= 200
    assert not RESERVED_ON_WINDOWS.fullmatch(name)


@given(names, names, names, names)
def test_two_deliverables_never_share_a_file(kind: str, other_kind: str, given_name: str, other_name: str) -> None:
    first = safe_name(Listed("0" * 16, "a", kind, "https://h/p", START, file_name=given_name))
    second = safe_name(Listed("0" * 15 + "1", "b", other_kind, "https://h/p", START, file_name=other_name))
    assert first.lower() != second.lower()


def test_what_is_wanted_is_what_was_listed() -> None:
    listed = one(sizeBytes=5, md5=MD5, sha256=SHA256)
    deliverable = wanted(listed)
    assert (deliverable.key, deliverable.id, deliverable.type) == (listed.key, "a", "Video")
    assert (deliverable.state, deliverable.bytes, deliverable.md5, deliverable.sha256) == ("wanted", 5, MD5, SHA256)
    assert "s3cr3t" not in repr(deliverable)
