"""The embedded Redis: one for a folder, reachable by its owner only, its data safe from a killed owner."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from service.core.errors import ReceiverError
from service.runtime import embedded_url_file, redis_url
from service.settings import load
from service.store.connection import safety_problems
from tests.deployment import eventually
from workers import redis_server

_OWNER = """
import sys, time
from pathlib import Path
from workers import redis_server
with redis_server.running(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def owner(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_it_is_sound_and_only_its_user_can_reach_it(tmp_path: Path) -> None:
    with redis_server.running(tmp_path) as url, Redis.from_url(url) as redis:
        assert safety_problems(redis) == []
        assert redis.config_get("appendfsync") == {"appendfsync": "always"}
        assert redis.config_get("port") == {"port": "0"}
        socket = Path(url.removeprefix("unix://"))
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        assert redis_url(load({"STATE_DIR": str(tmp_path)}, dotenv=None)) == url
    assert not socket.exists()
    assert not embedded_url_file(tmp_path).exists()


def test_what_was_kept_is_there_again_after_a_restart(tmp_path: Path) -> None:
    for turn in range(3):
        with redis_server.running(tmp_path) as url, Redis.from_url(url) as redis:
            assert redis.incr("turns") == turn + 1


def test_a_second_one_in_the_same_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with redis_server.running(tmp_path) as url:
        with pytest.raises(ReceiverError, match="STATE_DIR"), redis_server.running(tmp_path):
            pass
        with Redis.from_url(url) as redis:
            assert redis.ping()
        assert embedded_url_file(tmp_path).exists()


def test_a_server_of_a_killed_owner_is_taken_over_with_its_data(tmp_path: Path) -> None:
    first = owner(tmp_path)
    try:
        assert first.stdout is not None
        with Redis.from_url(first.stdout.readline().strip()) as redis:
            redis.set("kept", "yes")
            server = int(redis.info("server")["process_id"])
            os.kill(server, signal.SIGSTOP)  # so that it is still there when its owner is not
    finally:
        end(first)
    os.kill(server, signal.SIGCONT)
    with redis_server.running(tmp_path) as url, Redis.from_url(url) as redis:
        assert redis.get("kept") == b"yes"
        assert int(redis.info("server")["process_id"]) != server


def test_the_server_ends_with_a_killed_owner(tmp_path: Path) -> None:
    first = owner(tmp_path)
    assert first.stdout is not None
    socket = Path(first.stdout.readline().strip().removeprefix("unix://"))
    end(first)
    eventually(lambda: not socket.exists(), 5)


def test_a_folder_with_a_long_name_works(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 60) / ("b" * 60)
    with redis_server.running(folder) as url, Redis.from_url(url) as redis:
        assert redis.ping()
        assert len(url.removeprefix("unix://")) < 100
        assert list((folder / "redis").glob("append*"))


@pytest.mark.parametrize("name", ["a b's ü", "50%20off", "a#b", "a?b"])
def test_a_folder_with_odd_characters_in_its_name_works(tmp_path: Path, name: str) -> None:
    with redis_server.running(tmp_path / name) as url, Redis.from_url(url) as redis:
        assert redis.ping()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_folder_that_can_not_be_made_is_one_plain_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ReceiverError), redis_server.running(tmp_path / place):
        pass


def test_a_server_that_does_not_come_up_names_its_log(tmp_path: Path) -> None:
    with redis_server.running(tmp_path) as url, Redis.from_url(url) as redis:
        redis.set("a", "b" * 1000)
    manifest = tmp_path / "redis" / "appendonly.aof"
    target = manifest if manifest.is_file() else next((tmp_path / "redis").rglob("*.manifest"))
    target.write_bytes(b"not what Redis writes\n")
    with pytest.raises(ReceiverError, match=r"redis\.log"), redis_server.running(tmp_path):
        pass
    assert not embedded_url_file(tmp_path).exists()
