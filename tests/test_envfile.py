"""Writing `.env`: one variable changes, nothing else does, and nobody else can read it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from service import envfile
from service.core.errors import SettingsError


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str], str]:
    """What becomes of a file that says this, once A is saved as `new`."""

    def become(before: str) -> str:
        (tmp_path / ".env").write_bytes(before.encode())
        envfile.save("A", "new", tmp_path / ".env")
        return (tmp_path / ".env").read_bytes().decode()

    return become


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "A=new\n"),
        ("A=1", "A=new"),
        ("B=1\nA=2 # why\nC=3\n", "B=1\nA=new # why\nC=3\n"),
        ("# A=1\n", "# A=1\nA=new\n"),
        ("B=1", "B=1\nA=new\n"),
        ("export A = 'x # y' # why\r\nB=1\r\n", "export A=new # why\r\nB=1\r\n"),
        ("B=1\r\n", "B=1\r\nA=new\r\n"),
        ('\n\n  A="q\\"x\ny"\nB=3\n', "\n\n  A=new\nB=3\n"),
        ("A\n", "A=new\n"),
        ("A= # none\n", "A=new # none\n"),
        ("A=#x\n", "A=new\n"),
        ("B='A=1\n#x'\nA=2", "B='A=1\n#x'\nA=new"),
        ("A=1\nB=2\nA=3\n", "A=new\nB=2\nA=new\n"),
        ("A='broken\nB=1\n", "A='broken\nB=1\nA=new\n"),
    ],
)
def test_a_variable_changes_where_it_stands_and_all_else_stays(
    saved: Callable[[str], str], before: str, after: str
) -> None:
    assert saved(before) == after


@examples(max_examples=30, derandomize=True, deadline=None)
@given(
    st.lists(
        st.sampled_from(["A", "B", "=", "'", '"', "#", " ", "\n", "\r\n", "\\", "export ", "x", "A=1\n", "\n# A=2\n"]),
        max_size=14,
    ),
    st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12),
)
def test_whatever_a_file_says_the_variable_is_read_as_saved_and_every_other_as_before_or_all_stays(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], value: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "some.env"
    path.write_bytes("".join(parts).encode())
    before = dotenv_values(path, interpolate=False)
    try:
        envfile.save("A", value, path)
    except SettingsError:
        assert path.read_bytes() == "".join(parts).encode()
        return
    after = dotenv_values(path, interpolate=False)
    assert envfile.read("A", path) == after.pop("A") == value
    before.pop("A", None)
    assert after == before


def test_a_file_with_a_quote_that_does_not_end_is_left_to_its_owner(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("'")
    with pytest.raises(SettingsError, match="can't be read"):
        envfile.save("A", "a b", tmp_path / ".env")
    assert (tmp_path / ".env").read_text() == "'"


def test_it_is_readable_to_its_owner_alone_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("B=1\n")
    path.chmod(0o644)
    envfile.save("A", "new", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [".env"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("B=1\n")
    (tmp_path / ".env").symlink_to("real")
    envfile.save("A", "new", tmp_path / ".env")
    assert (tmp_path / ".env").is_symlink()
    assert (tmp_path / "real").read_text() == "B=1\nA=new\n"


def test_what_can_not_be_written_or_read_is_one_sentence_without_the_value(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(SettingsError, match="set A there yourself") as raised:
        envfile.save("A", "geheim", tmp_path / ".env")
    assert "geheim" not in str(raised.value)
    (tmp_path / "other").write_bytes(b"A=\xff\n")
    for act in (lambda path: envfile.save("A", "x", path), lambda path: envfile.read("A", path)):
        with pytest.raises(SettingsError):
            act(tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == b"A=\xff\n"
    assert envfile.read("A", tmp_path / "none") == ""


def test_two_who_save_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".env"

    def add(number: int) -> None:
        envfile.save("A", lambda before: f"{before},{number}".strip(","), path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(60)))
    assert sorted(envfile.read("A", path).split(","), key=int) == [str(number) for number in range(60)]


def test_a_folder_that_takes_no_file_is_said_before_there_is_anything_to_save(tmp_path: Path) -> None:
    envfile.check_writable(tmp_path / ".env")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsError, match="--save needs that"):
        envfile.check_writable(Path("/proc/.env"))
