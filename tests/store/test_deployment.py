"""A Redis that has lost what it kept is told from one that is new."""

from __future__ import annotations

from pathlib import Path

from redis import Redis

from service.store import deployment, due


def test_a_new_deployment_is_at_home_in_a_new_redis(redis: Redis, tmp_path: Path) -> None:
    assert deployment.recognise(redis, tmp_path)
    assert deployment.recognise(redis, tmp_path)
    assert due.sweep(redis).deployment == deployment.remembered(tmp_path) != ""


def test_a_redis_that_was_emptied_is_noticed_once(redis: Redis, tmp_path: Path) -> None:
    deployment.recognise(redis, tmp_path)
    redis.flushall()
    assert due.sweep(redis).deployment == ""
    assert not deployment.recognise(redis, tmp_path)
    assert deployment.recognise(redis, tmp_path)


def test_another_redis_in_the_place_of_ours_is_noticed_once(redis: Redis, tmp_path: Path) -> None:
    deployment.recognise(redis, tmp_path / "other")
    (tmp_path / "deployment").write_text("ours\n")
    assert not deployment.recognise(redis, tmp_path)
    assert deployment.recognise(redis, tmp_path)


def test_a_second_host_of_the_same_deployment_is_at_home_too(redis: Redis, tmp_path: Path) -> None:
    assert deployment.recognise(redis, tmp_path / "one")
    assert deployment.recognise(redis, tmp_path / "two")
    assert deployment.remembered(tmp_path / "one") == deployment.remembered(tmp_path / "two")


def test_a_folder_that_can_not_be_written_stops_nobody(redis: Redis, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert deployment.recognise(redis, tmp_path / "file")
    assert deployment.remembered(tmp_path / "file") == ""


def test_only_one_gives_a_nameless_redis_its_name(redis: Redis) -> None:
    assert [deployment.settle_in(redis, name) for name in ("one", "two")] == ["one", ""]
