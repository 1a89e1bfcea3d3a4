"""What is listed again, by a real store of blobs: another version beside the old one, or nothing at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from service import operator
from service.core.deliverables import Deliverable
from tests.deployment import eventually
from tests.store.making import event, take_in
from tests.workers.receiver import Bench

VIDEO: dict[str, Any] = {"type": "Video", "bytes": 300_000}


def folder(bench: Bench, identity: str) -> Path:
    return bench.settings.storage_dir / (bench.known(identity).folder or "")


def manifest(bench: Bench, identity: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder(bench, identity) / "manifest.json").read_text())
    return told


def lies_there(bench: Bench, identity: str, one: Deliverable) -> bool:
    content = (folder(bench, identity) / one.file).read_bytes()
    return (len(content), hashlib.sha256(content).hexdigest()) == (one.bytes, one.sha256)


def approved(bench: Bench, *files: dict[str, Any]) -> str:
    """A production that waits for its approval, its files stored."""
    plan = {"steps": 0, "stepSeconds": 0, "phaseSeconds": 0, "hold": "AwaitingApproval", "deliverables": list(files)}
    identity = bench.simulator.produce(plan)
    eventually(lambda: bench.truth(identity)["status"] == "AwaitingApproval")
    take_in(bench.redis, event(identity, 1, "deliverable.ready", truncated=True, data={"status": "AwaitingApproval"}))
    bench.ask()
    bench.fetch()
    assert bench.only(identity).state == "stored"
    return identity


def made_again(bench: Bench, identity: str) -> None:
    """It went back to be made again, and waits for its approval once more: all that webhooks tell of it."""
    take_in(
        bench.redis,
        event(identity, 2, data={"status": "Producing"}),
        event(identity, 3, data={"status": "AwaitingApproval"}),
    )
    bench.hurry("ask")
    bench.ask()


def sent_bytes(bench: Bench) -> int:
    return sum(one["bytes"] for one in bench.blob_requests())


def test_other_content_is_stored_beside_the_old_and_the_manifest_says_which_is_current(bench: Bench) -> None:
    identity = bench.published(VIDEO)
    bench.until_quiet()
    old = bench.only(identity)
    bench.simulator.relist(identity, {"bytes": 200_000})
    take_in(bench.redis, event(identity, 1001, "deliverable.ready", truncated=True, data={}))
    bench.until_quiet()
    before, after = bench.known(identity).deliverables
    assert before == old
    assert (after.state, after.bytes, after.version) == ("stored", 200_000, 2)
    assert lies_there(bench, identity, before)
    assert lies_there(bench, identity, after)
    told = manifest(bench, identity)
    assert [(one["file"], one["current"]) for one in told["deliverables"]] == [(before.file, False), (after.file, True)]
    assert told["settled"] is True
    assert bench.known(identity).settled
    assert list((bench.settings.state_dir / "partial").iterdir()) == []


def test_a_production_that_was_made_again_has_its_files_looked_at_and_nothing_fetched_twice(bare_bench: Bench) -> None:
    bench = bare_bench
    identity = approved(bench, {"type": "Video", "bytes": 30_000_000})
    before = sent_bytes(bench)
    made_again(bench, identity)
    [new] = [one for one in bench.known(identity).deliverables if one.state == "wanted"]
    assert new.compare == "head"
    bench.fetch()
    assert bench.only(identity).state == "stored"
    assert sent_bytes(bench) - before < 20_000_000, "the head of the answer proves that it is the same"
    assert list((bench.settings.state_dir / "partial").iterdir()) == []


def test_a_production_that_was_made_again_with_other_content_gets_it_though_nothing_announces_it(
    bare_bench: Bench,
) -> None:
    bench = bare_bench
    identity = approved(bench, VIDEO)
    bench.simulator.relist(identity)
    made_again(bench, identity)
    bench.fetch()
    before, after = bench.known(identity).deliverables
    assert (after.version, after.state) == (2, "stored")
    assert before.sha256 != after.sha256
    assert lies_there(bench, identity, before)
    assert lies_there(bench, identity, after)


def test_redownload_compares_and_keeps_what_is_whole(bench: Bench) -> None:
    identity = bench.published(VIDEO)
    bench.until_quiet()
    before, fetched = bench.only(identity), sent_bytes(bench)
    assert operator.redownload(bench.redis, bench.known(identity)) == 1
    take_in(bench.redis)
    bench.until_quiet()
    assert sent_bytes(bench) - fetched == 300_000
    after = bench.only(identity)
    assert (after.key, after.sha256, after.stored_at) == (before.key, before.sha256, before.stored_at)
    bench.is_stored(identity)


@pytest.mark.parametrize("damage", ["gone", "other bytes"])
def test_redownload_mends_what_does_not_lie_there_whole(bench: Bench, damage: str) -> None:
    identity = bench.published(VIDEO)
    bench.until_quiet()
    path = folder(bench, identity) / bench.only(identity).file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"x" * 300_000)
    operator.redownload(bench.redis, bench.known(identity), bench.only(identity).file)
    take_in(bench.redis)
    bench.until_quiet()
    bench.is_stored(identity)


def test_a_file_that_is_no_longer_listed_stays(bench: Bench) -> None:
    identity = bench.published(VIDEO)
    bench.until_quiet()
    before = bench.only(identity)
    take_in(bench.redis, event(identity, 1001, "deliverable.ready", data={"deliverables": [
        {"deliverableId": "other", "type": "Transcript", "sasUrl": "https://elsewhere.blob.core.windows.net/t.txt?sig=1"}
    ]}))  # fmt: skip
    assert before in bench.known(identity).deliverables
    assert lies_there(bench, identity, before)


def test_hundreds_of_files_of_any_name_are_all_stored_and_all_found(bench: Bench) -> None:
    names = [
        "a.vtt",
        "A.vtt",
        "a.VTT",
        "x" * 300 + ".vtt",
        "../../etc/passwd",
        "con.vtt",
        "..",
        "a\u202etxt.vtt",
        "🎬.vtt",
    ]
    files = [
        {"type": kind, "bytes": 300 + number, "fileName": names[number % len(names)]}
        for number, kind in enumerate(["ClosedCaptions", "Transcript", "Neues/..\\x"] * 50)
    ]
    identity = bench.published(*files)
    bench.until_quiet(40)
    bench.is_stored(identity)
    told = manifest(bench, identity)
    assert len({one["file"].lower() for one in told["deliverables"]}) == 150
    assert {path.name for path in folder(bench, identity).iterdir()} == {
        "manifest.json",
        *(one["file"] for one in told["deliverables"]),
    }
