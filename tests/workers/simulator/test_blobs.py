from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import time
from typing import Any

import pytest
import urllib3

from tests.workers.simulator.conftest import FAST, Caller, Starter, eventually
from workers.simulator.contents import BLOCK_BYTES, Content, blocks, read
from workers.simulator.running import run_in_thread

SIZE = 300_000


@pytest.fixture
def caller(start: Starter) -> Caller:
    return start()


def _one(caller: Caller, **plan: object) -> dict[str, Any]:
    wanted = {"deliverables": [{"type": "Video", "bytes": SIZE}], **plan}
    return caller.when_ready(caller.sim.produce(wanted))[0]


def test_a_whole_file_carries_what_proves_it(caller: Caller) -> None:
    url = _one(caller)["sasUrl"]
    whole = caller.get(url)
    assert whole.status == 200
    assert whole.headers["Content-Length"] == str(len(whole.data)) == str(SIZE)
    md5 = hashlib.md5(whole.data).digest()
    assert base64.b64decode(whole.headers["Content-MD5"]) == md5
    assert whole.headers["Accept-Ranges"] == "bytes"
    head = caller.get(url, "HEAD")
    assert (head.status, head.data, head.headers["Content-Length"]) == (200, b"", str(SIZE))
    assert head.headers["ETag"] == whole.headers["ETag"]


def test_ranges_are_parts_of_the_file(caller: Caller) -> None:
    url = _one(caller)["sasUrl"]
    whole = caller.get(url)
    for asked, start, stop in [
        ("5-9", 5, 10),
        ("299990-", 299_990, SIZE),
        ("-7", SIZE - 7, SIZE),
        ("9-9999999", 9, SIZE),
    ]:
        part = caller.get(url, Range=f"bytes={asked}")
        assert (part.status, part.data) == (206, whole.data[start:stop])
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        assert part.headers["x-ms-blob-content-md5"] == whole.headers["Content-MD5"]
        assert "Content-MD5" not in part.headers
    beyond = caller.get(url, Range=f"bytes={SIZE}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{SIZE}")
    assert b"<Code>InvalidRange</Code>" in beyond.data
    assert caller.get(url, Range="bytes=9-5").status == 200
    assert caller.get(url, Range="bytes=0-1,4-5").status == 200


def test_a_file_listed_again_is_another_file_at_the_same_address(caller: Caller) -> None:
    production_id = caller.sim.produce({"deliverables": [{"type": "Video", "bytes": SIZE}]})
    url = caller.when_ready(production_id)[0]["sasUrl"]
    old = caller.get(url)
    assert caller.get(url, Range="bytes=1-2", If_Range=old.headers["ETag"]).status == 206
    again = caller.sim.relist(production_id, {"bytes": SIZE + 1})["deliverables"][0]
    assert again["sasUrl"].partition("?")[0] == url.partition("?")[0]
    new = caller.get(url, Range="bytes=1-2", If_Range=old.headers["ETag"])
    assert (new.status, len(new.data)) == (200, SIZE + 1)
    assert new.headers["ETag"] != old.headers["ETag"]
    refused = caller.get(url, If_Match=old.headers["ETag"])
    assert (refused.status, b"ConditionNotMet" in refused.data) == (412, True)
    assert caller.get(url, If_Match=new.headers["ETag"]).status == 200
    truth = caller.when_quiet(production_id)
    assert [file["version"] for file in truth["replaced"] + truth["deliverables"]] == [1, 2]
    assert truth["deliverables"][0]["sha256"] == hashlib.sha256(new.data).hexdigest()
    assert truth["replaced"][0]["sha256"] == hashlib.sha256(old.data).hexdigest()
    assert [e["eventType"] for e in truth["events"]].count("deliverable.ready") == 2


def test_an_address_opens_its_own_file_and_only_for_a_while(start: Starter) -> None:
    caller = start(sas_lifetime_seconds=0.3)
    url = _one(caller)["sasUrl"]
    assert caller.get(url, "HEAD").status == 200
    for forged in (url.partition("?")[0], re.sub("se=....", "se=2999", url), url.replace("video-1", "video-2")):
        assert caller.get(forged).status == 403
    expired = eventually(lambda: answer if (answer := caller.get(url)).status != 200 else None)
    assert expired.status == 403
    assert expired.data.startswith(
        b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed'
    )


def test_a_bare_list_has_only_types_and_addresses(start: Starter) -> None:
    assert _one(start(bare_deliverables=True)).keys() == {"type", "sasUrl"}


def test_a_hostile_file_name_stays_out_of_the_address(caller: Caller) -> None:
    wanted = {"type": "Video", "bytes": 10, "fileName": "../../etc/passwd", "checksum": "sha256"}
    listed = _one(caller, deliverables=[wanted])
    assert listed["fileName"] == "../../etc/passwd"
    assert listed["sasUrl"].partition("?")[0].endswith("/0001.mp4")
    assert listed["sha256"] == hashlib.sha256(caller.get(listed["sasUrl"]).data).hexdigest()


def test_blob_faults_strike_once_when_asked_once(caller: Caller) -> None:
    url = _one(caller)["sasUrl"]
    whole = caller.get(url).data

    caller.sim.set_faults(**{f"blob_{name}": {"next": 1} for name in ("expired", "500", "503")})
    assert [caller.get(url).status for _ in range(4)] == [403, 500, 503, 200]

    caller.sim.set_faults(blob_cut={"next": 1, "value": 1000})
    with pytest.raises(urllib3.exceptions.ProtocolError, match="1000 bytes read"):
        caller.get(url)
    caller.sim.set_faults(blob_corrupt={"next": 1})
    corrupt = caller.get(url).data
    assert len(corrupt) == SIZE
    assert sum(one != other for one, other in zip(corrupt, whole, strict=True)) == 1
    caller.sim.set_faults(blob_ignore_range={"next": 1})
    assert caller.get(url, Range="bytes=1-2").status == 200
    caller.sim.set_faults(blob_short={"next": 1, "value": 100})
    assert caller.get(url).data == whole[:-100]
    caller.sim.set_faults(blob_slow={"next": 1, "value": SIZE * 10})
    assert caller.get(url).data == whole

    noted = caller.sim.truth()["blobRequests"]
    assert [each["faults"] for each in noted[-5:]] == [
        ["blob_cut"], ["blob_corrupt"], ["blob_ignore_range"], ["blob_short"], ["blob_slow"],
    ]  # fmt: skip
    assert [(each["bytes"], each["complete"]) for each in noted[-5:-3]] == [(1000, False), (SIZE, True)]


@pytest.mark.parametrize("kind", ["mp4", "vtt", "txt", "mp3", "pdf", "bin"])
def test_a_part_is_the_same_wherever_reading_begins(kind: str) -> None:
    content = Content("key", 2 * BLOCK_BYTES + 12_345, kind)
    whole = b"".join(blocks(content, 0, content.size_bytes))
    assert len(whole) == content.size_bytes
    for start in (0, 1, 40, BLOCK_BYTES - 3, BLOCK_BYTES + 5, content.size_bytes - 4):
        part = read(content, start, start + 100)
        assert part
        assert part == whole[start : start + len(part)]
    other = b"".join(blocks(Content("other", content.size_bytes, kind), 0, content.size_bytes))
    assert sum(one == two for one, two in zip(whole, other, strict=True)) < len(whole) / 4


def test_files_pass_a_light_look() -> None:
    def whole(kind: str, size: int = 50_000) -> bytes:
        return b"".join(blocks(Content("k", size, kind), 0, size))

    assert whole("vtt").startswith(b"WEBVTT\n\n")
    assert whole("txt").decode().startswith("Transcript")
    pdf = whole("pdf")
    assert (pdf[:5], pdf[-6:]) == (b"%PDF-", b"%%EOF\n")
    assert _mp4_boxes(whole("mp4")) == [b"ftyp", b"moov", b"mdat"]
    for size in (0, 1, 7):
        assert len(whole("pdf", size)) == size


def _mp4_boxes(file: bytes) -> list[bytes]:
    """The names of the top-level boxes, whose sizes must add up to the file."""
    names, at = [], 0
    while at < len(file):
        names.append(file[at + 4 : at + 8])
        at += int.from_bytes(file[at : at + 4], "big")
    assert at == len(file)
    return names


def test_a_simulator_ends_at_once_even_while_a_file_goes_out(start: Starter) -> None:
    with contextlib.ExitStack() as ending:
        sim = ending.enter_context(run_in_thread(FAST))
        caller = Caller(sim, ending.enter_context(urllib3.PoolManager()))
        url = _one(caller)["sasUrl"]
        sim.set_faults(blob_slow={"rate": 1, "value": 10})
        under_way = caller.pool.request("GET", url, preload_content=False)
        before = time.monotonic()
        ending.close()
        assert time.monotonic() - before < 1
        with pytest.raises(urllib3.exceptions.ProtocolError):
            under_way.read()
