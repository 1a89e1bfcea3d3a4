"""Sums beside the reading: always those of the bytes in order, and the thread always ends."""

from __future__ import annotations

import hashlib
import threading

import pytest

from service.core.content import Anything
from workers.hashing import Ring, Sums


class Broken:
    """A check that fails after so many pieces."""

    def __init__(self, after: int) -> None:
        self.left = after

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self.left -= 1
        if self.left < 0:
            raise MemoryError("no more")

    def problem(self) -> str | None:
        return None


def fill(ring: Ring, piece: bytes) -> None:
    ring.space()[: len(piece)] = piece
    ring.give(len(piece))


def go_round(sums: Sums, end: BaseException | None = None) -> None:
    with Ring(sums) as ring:
        for _ in range(50):
            fill(ring, b"x" * 256 * 1024)
        if end is not None:
            raise end


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "hashing"]


@pytest.mark.parametrize("piece_bytes", [1, 1000, 256 * 1024])
@pytest.mark.parametrize("pieces", [0, 1, 5, 50])
def test_the_sums_are_those_of_the_bytes_in_order(piece_bytes: int, pieces: int) -> None:
    sums, given = Sums(Anything(), with_md5=True), [bytes([n % 256]) * piece_bytes for n in range(pieces)]
    with Ring(sums) as ring:
        for piece in given:
            fill(ring, piece)
    whole = b"".join(given)
    assert (sums.size_bytes, sums.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert sums.md5 == hashlib.md5(whole).hexdigest()
    assert threads() == []


def test_a_small_file_costs_no_thread_and_a_large_one_a_few_buffers() -> None:
    with Ring(Sums(Anything(), with_md5=False)) as ring:
        for _ in range(4):
            fill(ring, bytes(256 * 1024))
            assert threads() == []
        for _ in range(500):
            fill(ring, bytes(256 * 1024))
        assert threads() == ["hashing"]
        assert ring._buffers <= 8
    assert threads() == []


@pytest.mark.parametrize("after", [0, 5, 49])
def test_what_goes_wrong_in_the_thread_is_raised_in_the_caller_and_the_thread_ends(after: int) -> None:
    with pytest.raises(MemoryError):
        go_round(Sums(Broken(after), with_md5=False))
    assert threads() == []


def test_what_goes_wrong_in_the_caller_ends_the_thread_and_leaves_the_sums_of_all_that_was_given() -> None:
    sums = Sums(Anything(), with_md5=False)
    with pytest.raises(KeyboardInterrupt):
        go_round(sums, KeyboardInterrupt())
    assert threads() == []
    assert sums.sha256 == hashlib.sha256(b"x" * 50 * 256 * 1024).hexdigest()
