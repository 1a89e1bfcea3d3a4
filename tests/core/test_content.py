"""What no player or reader could use is found out as it passes, however the bytes are cut; the rest passes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.content import look_at


def box(kind: bytes, payload: bytes = b"", long: bool = False) -> bytes:
    if long:
        return b"\0\0\0\1" + kind + (16 + len(payload)).to_bytes(8, "big") + payload
    return (8 + len(payload)).to_bytes(4, "big") + kind + payload


FTYP, MOOV, MDAT = box(b"ftyp", b"isom\0\0\2\0"), box(b"moov", box(b"mvhd", b"x" * 100)), box(b"mdat", b"y" * 500)
PDF = b"%PDF-1.7\n" + b"x" * 3000 + b"\nstartxref\n0\n%%EOF\n"
VTT = b"WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n"
SRT = "1\r\n00:00:00,000 --> 00:00:01,000\r\nGrüße\r\n"

SOUND = {
    "moov first": ("a.mp4", FTYP + MOOV + MDAT),
    "moov last": ("a.mp4", FTYP + box(b"free") + MDAT + MOOV),
    "fragmented": ("a.mp4", FTYP + MOOV + box(b"moof", b"z" * 40) + MDAT + box(b"mfra", b"q" * 9)),
    "a long size": ("a.m4v", FTYP + box(b"mdat", b"y" * 70, long=True) + MOOV),
    "a box to the end": ("a.m4a", FTYP + MOOV + b"\0\0\0\0mdat" + b"y" * 99),
    "zeros at the end": ("a.mp4", FTYP + MOOV + MDAT + bytes(64)),
    "a copyright sign": ("a.mp4", FTYP + MOOV + box(b"\xa9xyz", b"1")),
    "more behind it": ("a.mp4", FTYP + MOOV + MDAT + b"TAG" + b"\1" * 125),
    "a few bytes behind it": ("a.mp4", FTYP + MOOV + MDAT + b"\r\n"),
    "free space first": ("a.mp4", box(b"free") + FTYP + MOOV + MDAT),
    "PDF with a page of rubbish behind": ("a.pdf", PDF + b" " * 30_000),
    "text with a stray mark": ("a.txt", b"chapter one" * 20 + b"\x1f\x1a"),
    "SubRip in UTF-16 without a mark": ("a.srt", SRT.encode("utf-16-le")),
    "QuickTime": ("a.mov", box(b"wide") + MDAT + MOOV),
    "no ending, MP4": ("Video_0123456789abcdef", FTYP + MOOV + MDAT),
    "no ending, PDF": ("Certificate", PDF),
    "no ending, anything": ("Other", b"\0\1\2" * 50),
    "no ending, next to nothing": ("Other", b"\0"),
    "PDF": ("a.pdf", PDF),
    "PDF with a mail's head": ("a.pdf", b"\r\n\r\n" + PDF + b"\r\n" * 20),
    "WebVTT": ("a.vtt", VTT),
    "WebVTT with BOM, title, CRLF": ("a.vtt", b"\xef\xbb\xbfWEBVTT - a title\r\n\r\n"),
    "WebVTT of one word": ("a.VTT", b"WEBVTT"),
    "SubRip": ("a.srt", SRT.encode()),
    "SubRip in UTF-16": ("a.srt", SRT.encode("utf-16")),
    "SubRip in Latin-1": ("a.srt", SRT.encode("latin-1")),
    "empty text": ("a.txt", b""),
    "markup": ("a.ttml", b'<?xml version="1.0"?><tt/>'),
    "JSON": ("a.json", b'{"a": 1}'),
    "an unknown ending": ("a.docx", b"PK\3\4" + bytes(50)),
}
UNSOUND = {
    "cut MP4": ("a.mp4", (FTYP + MOOV + MDAT)[:-1], "1 bytes before its MP4 box mdat"),
    "MP4 cut in a header": ("a.mp4", FTYP + MOOV + MDAT[:5], "within the header"),
    "MP4 cut in a long header": ("a.mp4", FTYP + box(b"mdat", b"", long=True)[:12], "within the header"),
    "MP4 without moov": ("a.mp4", FTYP + MDAT, "no moov"),
    "MP4 with an empty moov": ("a.mp4", FTYP + box(b"moov") + MDAT, "no moov"),
    "MP4 that is a page": ("a.mp4", b"<!DOCTYPE html><html>" * 9, "does not begin"),
    "MP4 of zeros": ("a.mp4", bytes(5000), "does not begin"),
    "MP4 with rubbish between": ("a.mp4", FTYP + b"\0\0\1\0\x01\x02\x03\x04" + bytes(300), "no row of MP4 boxes"),
    "MP4 with a tiny box": ("a.mp4", FTYP + b"\0\0\0\4moov", "no row of MP4 boxes"),
    "empty MP4": ("a.mp4", b"", "is empty"),
    "MOV of noise": ("a.mov", b"\xff" * 5000, "does not begin"),
    "no ending, cut MP4": ("Video", (FTYP + MOOV + MDAT)[:-9], "before its MP4 box"),
    "no ending, cut PDF": ("Certificate", PDF[:-30], "end is missing"),
    "cut PDF": ("a.pdf", PDF[:-8], "end is missing"),
    "PDF that is a page": ("a.pdf", b"<html>" + b" " * 3000 + b"%PDF- %%EOF", "does not begin as a PDF"),
    "empty PDF": ("a.pdf", b"", "does not begin as a PDF"),
    "WebVTT that is SubRip": ("a.vtt", SRT.encode(), "WEBVTT"),
    "WebVTT with more in its first word": ("a.vtt", b"WEBVTTX\n", "WEBVTT"),
    "empty WebVTT": ("a.vtt", b"", "WEBVTT"),
    "WebVTT that turns binary": ("a.vtt", VTT + b"\0\0\0" * 9, "not text"),
    "text that is binary": ("a.txt", b"PK\3\4\1\0def" * 9, "not text"),
    "text that is an error": ("a.txt", b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>Gone</Code></Error>', "markup"),
    "JSON that is a page": ("a.json", b"\n <!doctype html><p>", "markup"),
}


def verdict(file: str, content: bytes, cuts: tuple[int, ...] = ()) -> str | None:
    look = look_at(file)
    edges = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    for start, stop in pairwise(edges):
        look.update(content[start:stop])
    return look.problem()


@pytest.mark.parametrize("name", SOUND)
def test_what_can_be_used_passes(name: str) -> None:
    assert verdict(*SOUND[name]) is None


@pytest.mark.parametrize("name", UNSOUND)
def test_what_nothing_could_use_is_named(name: str) -> None:
    file, content, phrase = UNSOUND[name]
    assert phrase in (verdict(file, content) or "")


@given(
    sample=st.sampled_from([one[:2] for one in (*SOUND.values(), *UNSOUND.values())]),
    cuts=st.lists(st.integers(0, 10_000), max_size=8).map(tuple),
)
def test_how_the_bytes_are_cut_changes_nothing(sample: tuple[str, bytes], cuts: tuple[int, ...]) -> None:
    assert verdict(*sample, cuts) == verdict(*sample)
    file, content = sample
    assert verdict(file, content, tuple(range(min(len(content), 200)))) == verdict(file, content)


@given(size=st.integers(0, len(FTYP + MOOV + MDAT) - 1))
def test_an_mp4_that_is_cut_anywhere_is_found_out(size: int) -> None:
    whole = FTYP + MDAT + MOOV
    assert verdict("a.mp4", whole[:size]) is not None


@given(file=st.sampled_from(["a.mp4", "a.mov", "a.pdf", "a.vtt", "a.txt", "a.html", "a", "a.bin"]), content=st.binary())
def test_no_bytes_make_a_look_raise(file: str, content: bytes) -> None:
    found = verdict(file, content)
    assert found is None or found.isprintable()
