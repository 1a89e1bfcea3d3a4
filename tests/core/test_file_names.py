"""Where a file ends up, whatever JARAI calls its account, its type and its name: in its production's folder."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.core.errors import MalformedEvent
from service.core.observations import StatusAnswered
from service.core.partner_api import read_status
from service.core.production import Production
from tests.core.given import ACCOUNT_ID, PRODUCTION_ID, after, at, item, listing, ready, response

RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³])")
EVIL = [
    *(
        "../../etc/passwd",
        "..\\..\\x",
        "/etc/passwd",
        "//h/x",
        "\\\\host\\share\\x",
        "\\\\?\\C:\\x",
        "C:\\x",
        "C:x",
        "~root",
    ),
    *(
        "CON",
        "con.mp4",
        "NUL",
        "COM1.txt",
        "LPT9",
        "aux ",
        "CONIN$",
        "COM\u00b9",
        "con.con.con",
        "x:stream",
        "x.mp4::$DATA",
    ),
    *(
        "",
        " ",
        ".",
        "..",
        "...",
        ".mp4",
        "x.",
        "x ",
        "x. .",
        "-rf",
        "--",
        "$(id)",
        "`id`",
        "%2e%2e%2f",
        "%00",
        "x\x00.mp4",
    ),
    *(
        "x\n.mp4",
        "\u202egpj.exe",
        "\u2024\u2024/x",
        "\uff0e\uff0e\uff0fx",
        "\u2215x",
        "\u212a.mp4",
        "\u0130.mp4",
        "\ud800",
    ),
    *("e\u0301.mp4", "\u00e9.mp4", "a" * 255, "\u00e4" * 255, "x." + "y" * 255, "manifest.json"),
]
NO_JSON = "\ud800"
texts = st.sampled_from(EVIL) | st.text(max_size=30) | st.text(alphabet="./\\:%2eEfF conCON\x00~", max_size=12)


def place(production: Production) -> list[str]:
    assert production.folder is not None
    return [f"{production.folder}/{one.file}" for one in production.deliverables]


def stays_inside(path: str) -> None:
    """A file of its production's folder on POSIX as on Windows, and of no other name than the one that was written."""
    posix, windows = PurePosixPath("/root") / path, PureWindowsPath("R:\\root") / path
    assert posix.parts[:2] == ("/", "root")
    assert windows.parts[:2] == ("R:\\", "root")
    assert len(posix.parts) == len(windows.parts) == 5
    assert ".." not in posix.parts
    assert path.isascii()
    for part in windows.parts[1:]:
        assert ":" not in part
        assert RESERVED.fullmatch(part.partition(".")[0].strip()) is None
        assert part == part.rstrip(". ")
        assert not part.startswith(("-", "."))
        assert len(part) <= 200
    assert len(path) <= 300


@given(texts.filter(lambda text: text != NO_JSON), texts, texts, texts, texts)
@example("CON", "CON", "CON", "https://h/CON", "CON")
def test_a_file_stays_in_its_productions_folder(account: str, kind: str, name: str, path: str, identity: str) -> None:
    listed = item(identity, type=kind, fileName=name, sasUrl=f"https://h/{path}?sig=x")
    answer = read_status(response({"status": "Published", "accountId": account}))
    told = StatusAnswered(at=at(1), as_of=at(1), knew_sequence=-1, status="Published", account_id=answer.account_id)
    production = after(told, listing(listed))
    assert production.deliverables
    for one in place(production):
        stays_inside(one)


@given(st.lists(st.tuples(texts, texts, texts), min_size=2, max_size=8))
@example([("Video", "x.mp4", "a"), ("VIDEO", "X.MP4", "A")])
@example([("Video", "\u00e9.mp4", "a"), ("Video", "e\u0301.mp4", "b")])
@example([("Video", "x", "a" * 400), ("Video", "x", "a" * 399)])
def test_no_two_files_of_a_production_share_a_place_where_case_does_not_count(
    files: list[tuple[str, str, str]],
) -> None:
    items = [item(identity, type=kind, fileName=name) for kind, name, identity in files]
    production = after(listing(*items))
    places = [one.lower() for one in place(production)]
    assert len(set(places)) == len(places)
    assert not any(one.endswith("/manifest.json") for one in places)


@pytest.mark.parametrize("account", EVIL)
def test_an_account_that_is_no_uuid_names_no_folder(account: str) -> None:
    if account != NO_JSON:
        assert read_status(response({"status": "Queued", "accountId": account})).account_id is None
    with pytest.raises(MalformedEvent):
        after(ready(1, item(), accountId=account))


@pytest.mark.parametrize(
    "spelling", [ACCOUNT_ID.upper(), f"{{{ACCOUNT_ID}}}", f"urn:uuid:{ACCOUNT_ID}", ACCOUNT_ID.replace("-", "")]
)
def test_however_an_account_is_written_its_folder_is_the_same(spelling: str) -> None:
    value: Any = {"status": "Queued", "accountId": spelling}
    assert read_status(response(value)).account_id == ACCOUNT_ID
    assert after(ready(1, item(), accountId=spelling)).folder == f"{UUID(ACCOUNT_ID)}/{PRODUCTION_ID}"


def test_without_an_account_there_is_a_folder_all_the_same() -> None:
    [one] = place(after(listing(item())))
    assert one.startswith(f"unknown-account/{PRODUCTION_ID}/")
    stays_inside(one)
