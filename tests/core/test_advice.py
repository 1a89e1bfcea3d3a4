"""What a person reads when JARAI did not do it: what was said, what to do, and what JARAI's support asks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from service.core.advice import advise, no_request_left, when
from service.core.errors import (
    JaraiError,
    JaraiRefused,
    JaraiUnavailable,
    NoRequestLeft,
    OutcomeUnknown,
    RateLimited,
)
from service.core.partner_api import Request, status_request
from service.core.subscriptions import list_request

SUMMER = timezone(timedelta(hours=2))
EVENING = datetime(2026, 4, 3, 21, 0, tzinfo=SUMMER)
TRIGGER = Request("POST", "/accounts/a/productions", b"{}", scope="productions:write")


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        (401, "UNAUTHORIZED", "JARAI_API_KEY"),
        (401, "", "JARAI_API_KEY"),
        (403, "PARTNER_NOT_ACTIVE", "partners verify"),
        (403, "ACCOUNT_NOT_ACTIVE", "`accounts`"),
        (403, "INSUFFICIENT_SCOPE", "productions:write (called productions:trigger and productions:cancel by older"),
        (403, "PERMISSION_DENIED", "productions:write"),
        (409, "BUDGET_GATE_1_FAILED", "account's own budget"),
        (409, "BUDGET_GATE_7B_FAILED", "account's own budget"),
        (409, "SOMETHING", "state"),
        (400, "INVALID_REQUEST", "change what it names"),
        (404, "NOT_FOUND", "id"),
        (413, "", "too large"),
        (418, "TEAPOT", "support"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, code: str, word: str) -> None:
    assert word in advise(JaraiRefused("no", status=status, code=code), TRIGGER, EVENING)


def test_the_scope_that_is_missing_is_named_as_far_as_it_is_known() -> None:
    refused = JaraiRefused("no", status=403, code="PERMISSION_DENIED")
    assert "webhooks:read (called webhooks:manage by older keys)" in advise(refused, list_request(), EVENING)
    assert advise(refused, status_request("x"), EVENING).endswith("the scope productions:read")
    assert "support" in advise(refused, Request("POST", "/partners/keys/rotate"), EVENING)


@pytest.mark.parametrize(
    ("status", "sent", "word"),
    [(500, True, "later"), (408, True, "later"), (None, True, "later"), (None, False, "nothing was sent")],
)
def test_trouble_on_the_way_says_so(status: int | None, sent: bool, word: str) -> None:
    assert word in advise(JaraiUnavailable("no", status=status, sent=sent), TRIGGER, EVENING)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "in 1 s"),
        (23.4, "in 23 s"),
        (180, "in 180 s"),
        (600, "at 21:10 (in 10 min)"),
        (5 * 3600, "at midnight UTC (02:00 here, in 5 h)"),
        (5 * 3600 - 60, "at midnight UTC (02:00 here, in 4 h)"),
        (5 * 3600 + 60, "at midnight UTC (02:00 here, in 5 h)"),
        (2 * 3600, "at 23:00 (in 2 h)"),
        (5400, "at 22:30 (in 90 min)"),
    ],
)
def test_a_wait_is_told_by_the_clock_on_the_wall(seconds: float, said: str) -> None:
    assert when(seconds, EVENING) == said


def test_a_limit_says_when_to_come_again() -> None:
    assert advise(RateLimited("no", status=429, retry_after_seconds=7), TRIGGER, EVENING) == "again in 7 s"
    assert advise(RateLimited("no", status=429), TRIGGER, EVENING) == "again in 60 s"
    assert no_request_left(23, EVENING) == "No request to JARAI is left this minute; again in 23 s."
    assert no_request_left(18_000, EVENING.astimezone(UTC)) == (
        "No request to JARAI is left today; again at midnight UTC (00:00 here, in 5 h)."
    )


def test_a_sentence_holds_what_was_said_what_to_do_and_the_correlation_id() -> None:
    error = JaraiError("JARAI answers 404: It is gone.", correlation_id="c-1")
    assert error.sentence == "JARAI answers 404: It is gone (correlation id c-1)"
    error.advice = "look elsewhere"
    assert error.sentence == "JARAI answers 404: It is gone; look elsewhere (correlation id c-1)"
    assert JaraiError("x").sentence == "x"


def test_what_was_not_sent_or_is_not_known_is_told_with_its_facts() -> None:
    assert (str(NoRequestLeft("none left", 7.5)), NoRequestLeft("none left", 7.5).wait_seconds) == ("none left", 7.5)
    assert [OutcomeUnknown("who knows", repeated=again).repeated for again in (False, True)] == [False, True]
