"""What is secret is taken out of any finished text, however it is wrapped."""

from __future__ import annotations

import json
from time import process_time
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.core.redaction import HIDDEN, redact

SECRET = "s3cr3tS3CR3T"
ADDRESS = f"https://jarai.blob.core.windows.net/out/a.mp4?sv=2024-11-04&se=2026-04-03&sig={SECRET}%2Bx%3D"


@pytest.mark.parametrize(
    "text",
    [
        ADDRESS,
        f"GET {ADDRESS} failed",
        f"<{ADDRESS}>",
        f"({ADDRESS})",
        f"nothttps://h/p?token={SECRET}",
        f"HTTPS://H/P?{SECRET}",
        f"https://h?{SECRET}",
        f"redis://:{SECRET}@127.0.0.1:6379/0",
        f"redis+sentinel://user:{SECRET}@one:26379,two:26379/name",
        f"https://user:{SECRET}@h/p?x={SECRET}",
        f"HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /out/a?sv=1&sig={SECRET}",
        f"?sig={SECRET}",
        f"SIG={SECRET}",
        f"signature={SECRET}",
        f"sig%3D{SECRET}",
        quote(f"/out/a.mp4?sv=1&sig={SECRET}"),
        quote(ADDRESS, safe=""),
        f"/out/a.mp4?sv=1\\u0026sig={SECRET}",
        f"/out/a.mp4?sv=1\\u0026se=2\\\\u0026sig={SECRET}",
        ADDRESS.replace("&", "\\u0026"),
        ADDRESS.replace("/", "\\/"),
        f"X-API-Key: jarai_{SECRET}",
        f"jarai_live_{SECRET}",
        f"api_key=jarai_test_{SECRET}, next",
        f"Authorization: Bearer {SECRET}",
        f"bearer   {SECRET}",
        f"\x1b[35m{ADDRESS}\x1b[0m",
        f"\x1b[35mjarai_live_{SECRET}\x1b[0m",
        f"\x1b[35msig={SECRET}\x1b[0m",
        f"key_jarai_live_{SECRET}",
    ],
)
def test_no_secret_survives(text: str) -> None:
    assert SECRET not in redact(text)
    assert HIDDEN in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing to hide",
        "https://jarai.blob.core.windows.net/out/a.mp4",
        "what? a design, an assignment: signal",
        "the jarai_ prefix",
        "a bearer of news",
        "mail a@b.example",
        "redis://127.0.0.1:6379/0",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert redact(text).replace(f"bearer {HIDDEN}", "bearer of") == text


def test_the_path_of_an_address_stays_and_so_does_the_rest_of_the_line() -> None:
    assert redact(f'{{"url": "{ADDRESS}", "n": 1}}') == (
        f'{{"url": "https://jarai.blob.core.windows.net/out/a.mp4?{HIDDEN}", "n": 1}}'
    )


def test_known_values_are_taken_out_even_where_one_begins_with_another() -> None:
    assert redact("is hunter2hunter2 or hunter2", ["hunter2", "absent", "hunter2hunter2"]) == f"is {HIDDEN} or {HIDDEN}"


unreserved = "abcXYZ019-._~"
queries = st.dictionaries(
    st.sampled_from(["sig", "se", "sv", "token", "x"]), st.text(unreserved + "%2B/+=!*:@,;", max_size=12)
).map(lambda query: "&".join([*(f"{name}={value}" for name, value in query.items()), f"sig={SECRET}", f"k={SECRET}"]))
wrappings = st.lists(
    st.sampled_from(
        [
            repr,
            str,
            json.dumps,
            lambda text: json.dumps({"a": [text]}),
            lambda text: json.dumps(text).replace("&", "\\u0026"),
            lambda text: str(ValueError(text)),
            lambda text: repr(OSError(5, text)),
            lambda text: f"url: {text}\n  next line",
            lambda text: f"b'{text}'",
        ]
    ),
    max_size=4,
)


@given(queries, wrappings, st.sampled_from(["https://h.example/out/a", "https://u:p@h:443/", "redis://h/0"]))
@example("sig=a&sig=b" + SECRET, [json.dumps, json.dumps, json.dumps], "https://h/p")
def test_no_query_of_an_address_survives_however_often_it_is_wrapped(
    query: str, wrapped: list[object], base: str
) -> None:
    text = f"{base}?{query}"
    for wrap in wrapped:
        text = wrap(text)  # type: ignore[operator]
    assert SECRET not in redact(text)


@given(st.text(), st.text())
def test_taking_out_twice_changes_nothing_more(before: str, behind: str) -> None:
    once = redact(f"{before} {ADDRESS} {behind}")
    assert SECRET not in once
    assert redact(once) == once


@pytest.mark.parametrize("piece", ["a.", "a://", "://", "://@", "a://?\\", "sig=\\", "bearer ", "jarai_", "\\u0026"])
def test_no_text_makes_it_slow(piece: str) -> None:
    """A mebibyte is what a webhook may have; the time must grow with the length, not with its square."""
    text = "sig " + piece * (40_000 // len(piece))
    began = process_time()
    redact(text)
    assert process_time() - began < 0.5
