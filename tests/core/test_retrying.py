"""What expired before JARAI began is triggered again, as often as was asked for, and never in doubt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.core.observations import AskFailed, Observation, OperatorAsked, Retriggered
from service.core.production import EXPIRED, Production
from service.core.view import describe
from tests.core.given import NEW, PRODUCTION_ID, after, answered, arrived, at, change, fact_names

BODY = '{"topic": "Bees"}'
OTHER = "11111111-2222-4333-8444-555555555555"


def triggered(retries: int = 2, **fields: Any) -> OperatorAsked:
    return OperatorAsked(at(0), "track", body=BODY, retries_left=retries, **fields)


def expired(code: str | None = EXPIRED) -> Observation:
    return arrived("production.failed", 2, data={} if code is None else {"errorCode": code})


def not_triggered(final: bool, seconds: float = 100) -> AskFailed:
    return AskFailed(at(seconds), "trigger", "JARAI answers 409", code="BUDGET_GATE_1_FAILED", final=final)


EXPIRED_ONE = after(expired(), before=after(triggered()))


def test_what_has_expired_is_to_be_triggered_again_at_once() -> None:
    assert EXPIRED_ONE.is_to_be_retried
    assert EXPIRED_ONE.retry_at == EXPIRED_ONE.due_to_ask_at == at(100)
    assert EXPIRED_ONE.tells_much
    by_poll = after(answered("Failed", error_code=EXPIRED), before=after(triggered()))
    assert by_poll.retry_at == at(100)


@pytest.mark.parametrize(
    ("begun", "ended"),
    [
        (triggered(retries=0), expired()),
        (OperatorAsked(at(0), "track"), expired()),
        (triggered(), expired("PIPELINE_STEP_FAILED")),
        (triggered(), arrived("production.published", 2)),
    ],
)
def test_nothing_else_is(begun: Observation, ended: Observation) -> None:
    known = after(ended, before=after(begun))
    assert (known.is_to_be_retried, known.retry_at, known.trigger_body) == (False, None, "")


def test_where_an_event_does_not_say_why_it_failed_jarai_is_asked_first() -> None:
    unsaid = after(expired(None), before=after(triggered()))
    assert (unsaid.retry_at, unsaid.status_at, unsaid.trigger_body) == (None, at(100), BODY)
    said = after(answered("Failed", 101, error_code=EXPIRED), before=unsaid, seconds=101)
    assert (said.retry_at, said.status_at) == (at(101), None)
    message = arrived("production.failed", 2, data={"errorMessage": "Nobody came."})
    half = after(answered("Failed", 101, error_code=EXPIRED), before=after(message, before=after(triggered())))
    assert (half.is_to_be_retried, half.error_message) == (True, "Nobody came.")
    assert after(expired(None), before=after(triggered(0))).status_at is None, "nobody wants to know"


def test_the_two_are_linked_and_the_first_is_named_by_all() -> None:
    done = change(Retriggered(at(101), OTHER), before=EXPIRED_ONE)
    assert fact_names(done) == ["production.retried"]
    assert (done.production.retried_as, done.production.retry_at, done.production.trigger_body) == (OTHER, None, "")
    assert describe(done.production)["retriedAs"] == OTHER
    second = after(triggered(1, retry_of=PRODUCTION_ID), before=replace(NEW, production_id=OTHER))
    assert (second.retries_left, describe(second)["retryOf"]) == (1, PRODUCTION_ID)


def test_one_that_was_triggered_again_is_not_triggered_a_second_time_whatever_is_replayed() -> None:
    done = after(Retriggered(at(101), OTHER), before=EXPIRED_ONE)
    again = after(OperatorAsked(at(102), "replay"), expired(), triggered(), before=done)
    assert (again.status, again.is_to_be_retried) == ("Failed", False)


def test_an_answer_that_is_no_use_is_tried_again_with_a_pause() -> None:
    once = after(not_triggered(final=False), before=EXPIRED_ONE)
    assert once.retry_at is not None
    assert once.retry_at > at(100)
    assert once.trigger_body == BODY


def test_what_is_refused_or_in_doubt_is_a_dead_letter_until_a_person_sends_it_once_more() -> None:
    step = change(not_triggered(final=True), before=EXPIRED_ONE)
    [letter] = step.dead_letters
    assert (letter.kind, letter.key) == ("question", "retry")
    assert "JARAI answers 409" in letter.reason
    assert (step.production.retry_at, step.production.trigger_body) == (None, BODY)
    again = change(OperatorAsked(at(200), "retry", key="retry"), before=step.production, seconds=200)
    assert again.resolved == ("retry",)
    assert (again.production.retry_at, again.production.retry_round) == (at(200), 1)
    blocked_again = after(not_triggered(final=True), before=again.production)
    assert (blocked_again.retry_at, blocked_again.retry_round) == (None, 1)


def test_retrying_its_files_does_not_trigger_it() -> None:
    blocked = after(not_triggered(final=True), before=EXPIRED_ONE)
    for wish in (OperatorAsked(at(200), "retry"), OperatorAsked(at(200), "retry", key="a")):
        assert after(wish, before=blocked).retry_at is None
    sound: Production = after(OperatorAsked(at(200), "retry", key="retry"), before=NEW)
    assert sound.retry_round == 0
