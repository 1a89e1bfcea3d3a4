"""Whatever a blob store answers, and in whatever order: only the right bytes ever lie under a file's name."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from redis import Redis

from service import operator
from service.core.production import Production
from service.settings import Settings, load
from service.store import deadletters, productions
from service.store.scripts import PREFIX
from tests.store.making import event, logged, new_id, take_in, values_of
from tests.workers.hostile import Asked, hostile, whole
from tests.workers.test_transfer import CUT, MD5, NEVER_RIGHT, SHA256, TRUTH, rest
from workers.download import Downloader

LIES = {
    **NEVER_RIGHT,
    "cut off": CUT,
    "the rest": rest(),
    "the rest of another file": rest(body=bytes(len(TRUTH) - 4000)),
    "wrong bytes": whole(bytes(len(TRUTH)), 'ETag: "one"'),
    "more bytes": whole(TRUTH + b"more"),
    "expired": whole(b"<Error>", status="403 Forbidden"),
    "busy": whole(b"", "Retry-After: 0", status="503 Busy"),
    "a redirect inside": whole(b"", "Location: http://169.254.169.254/?sig=s3cr3t", status="302 Found"),
    "a redirect to a file": whole(b"", "Location: file:///etc/passwd", status="301 Moved"),
    "a redirect to nowhere": whole(b"", status="307 Temporary"),
    "a redirect to itself": whole(b"", "Location: ?sig=s3cr3t", status="308 Permanent"),
}
ANNOUNCED: list[dict[str, Any]] = [
    {"sha256": SHA256, "sizeBytes": len(TRUTH)},
    {"sha256": SHA256},
    {"md5": MD5},
]


def hurry(redis: Redis) -> None:
    waiting: Any = redis.zrange(f"{PREFIX}download", 0, -1)
    for key in waiting:
        redis.zadd(f"{PREFIX}download", {key: 0}, xx=True)


def list_it(redis: Redis, identity: str, number: int, url: str, announced: dict[str, Any]) -> None:
    listed = {"deliverableId": "d", "type": "Video", "fileName": "film.bin", "sasUrl": url, **announced}
    take_in(redis, event(identity, number, "deliverable.ready", data={"deliverables": [listed]}))


def known(redis: Redis, identity: str) -> Production:
    found = productions.read(redis, identity)
    assert found is not None
    return found


def nothing_is_wrong(redis: Redis, settings: Settings, identity: str) -> None:
    for place in settings.storage_dir.rglob("*"):
        assert place.is_dir() or place.name in ("manifest.json", ".jarai-receiver") or place.read_bytes() == TRUTH
    [one] = known(redis, identity).deliverables
    assert (one.state == "failed") == (deadletters.count(redis) == 1)
    assert one.error or one.state == "stored" or one.attempts == 0


@examples(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted(LIES)), min_size=1, max_size=5), st.sampled_from(ANNOUNCED))
@example(["cut off", "the rest of another file", "wrong bytes"], ANNOUNCED[1])
@example(["a redirect inside"], ANNOUNCED[0])
@example(["expired", "a page", "busy"], ANNOUNCED[2])
def test_after_any_lies_a_store_that_tells_the_truth_brings_the_file(
    redis: Redis, lies: list[str], announced: dict[str, Any]
) -> None:
    redis.flushall()
    identity = new_id()
    left = [LIES[lie] for lie in lies]

    def script(asked: Asked) -> bytes:
        return left.pop(0) if left else whole(TRUTH)

    with tempfile.TemporaryDirectory() as folder, hostile(script) as server, logged() as lines:
        environment = {"DOWNLOAD_HOSTS": "127.0.0.1", "STORAGE_URL": f"{folder}/final", "STATE_DIR": f"{folder}/state"}
        settings = load(environment, dotenv=None)
        url = f"{server.url}/out/film.bin?sig=s3cr3t"
        list_it(redis, identity, 1, url, announced)
        for number in range(2, 16):
            hurry(redis)
            Downloader(redis, settings).drain()
            take_in(redis)
            nothing_is_wrong(redis, settings, identity)
            [one] = known(redis, identity).deliverables
            if one.state == "failed":
                [letter] = deadletters.newest(redis, 2)
                assert letter.reason == letter.reason.strip() != ""
                left.clear()
                operator.retry(redis, letter)
                take_in(redis)
            if one.state != "stored":  # as JARAI answers a question for a list
                list_it(redis, identity, number, url, announced)
        [one] = known(redis, identity).deliverables
        assert one.state == "stored", one
        [film] = (path for path in Path(folder, "final").rglob("*.bin"))
        assert film.read_bytes() == TRUTH
        assert list(Path(folder, "state", "partial").iterdir()) == []
    assert "s3cr3t" not in lines.getvalue()
    assert "download.unexpected" not in lines.getvalue()
    assert not any("s3cr3t" in text for key, text in values_of(redis).items() if not key.startswith(f"{PREFIX}link:"))


@pytest.mark.parametrize("lie", ["nothing", "a page", "another framing", "wrong bytes", "a redirect to itself"])
def test_a_store_that_never_tells_the_truth_ends_in_a_dead_letter_with_a_plain_sentence(
    redis: Redis, tmp_path: Path, lie: str
) -> None:
    environment = {"DOWNLOAD_HOSTS": "127.0.0.1", "STORAGE_URL": f"{tmp_path}/final", "STATE_DIR": f"{tmp_path}/state"}
    settings, identity = load(environment, dotenv=None), new_id()
    with hostile(LIES[lie]) as server:
        list_it(redis, identity, 1, f"{server.url}/out/film.bin?sig=s3cr3t", ANNOUNCED[0])
        for _ in range(20):
            hurry(redis)
            Downloader(redis, settings).drain()
            take_in(redis)
            nothing_is_wrong(redis, settings, identity)
    [letter] = deadletters.newest(redis, 2)
    assert "s3cr3t" not in letter.reason
    assert len(letter.reason.split()) >= 4
    assert len(server.asked) <= 4 * 12
    assert list(tmp_path.rglob("*.bin")) == []
