"""A body is JARAI's only when its HMAC says so. The expected digests come from RFC 4231 and from `hmac` itself."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from service.core.errors import InvalidSignature
from service.core.signature import decode_secret, fingerprint, verify

# RFC 4231, test case 2: key "Jefe".
BODY = b"what do ya want for nothing?"
DIGEST = b"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
KEY = b"Jefe"


@pytest.mark.parametrize("header", [b"sha256=" + DIGEST, b"sha256=" + DIGEST.upper(), b"  sha256=" + DIGEST + b"\t"])
def test_a_genuine_signature_is_accepted(header: bytes) -> None:
    verify(BODY, header, [KEY])


@pytest.mark.parametrize("body", [b"", b"\x00\xff\xfe", b'{"a": 1}', "Grüße".encode(), b"x" * 100_000])
def test_the_raw_bytes_are_what_is_signed(body: bytes) -> None:
    signed = hmac.new(b"\x00\xffkey", body, hashlib.sha256).hexdigest().encode()
    verify(body, b"sha256=" + signed, [b"\x00\xffkey"])
    with pytest.raises(InvalidSignature):
        verify(body + b" ", b"sha256=" + signed, [b"\x00\xffkey"])


@pytest.mark.parametrize("place", range(3))
def test_any_of_several_secrets_will_do_so_that_one_can_be_rotated(place: int) -> None:
    keys = [b"old", b"other"]
    keys.insert(place, KEY)
    assert verify(BODY, b"sha256=" + DIGEST, keys) == place


def test_a_key_is_known_by_a_fingerprint_that_no_signature_gives_away() -> None:
    assert fingerprint(KEY) == fingerprint(KEY) != fingerprint(b"other")
    assert len(fingerprint(KEY)) == 12
    assert fingerprint(KEY) not in hashlib.sha256(KEY).hexdigest() + hmac.new(KEY, b"", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"sha256=",
        DIGEST,
        b"sha1=" + DIGEST,
        b"SHA256=" + DIGEST,
        b"sha256=" + DIGEST[:-1],
        b"sha256=" + DIGEST + b"0",
        b"sha256=" + DIGEST[:-1] + b"g",
        b"sha256=" + DIGEST + b", sha256=" + DIGEST,
        b"sha256=" + b"0" * 64,
        b"sha256=\xff" + DIGEST[1:],
    ],
)
def test_a_missing_or_wrong_signature_is_refused(header: bytes | None) -> None:
    with pytest.raises(InvalidSignature):
        verify(BODY, header, [KEY, b"another"])


def test_without_a_secret_nothing_is_genuine() -> None:
    empty = hmac.new(b"", BODY, hashlib.sha256).hexdigest().encode()
    with pytest.raises(InvalidSignature):
        verify(BODY, b"sha256=" + empty, [])


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("SmVmZQ", KEY),
        ("SmVmZQ==", KEY),
        ("-_8", b"\xfb\xff"),
        ("AA", b"\x00"),
        ("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", b"0123456789abcdef0123456789abcdef"),
    ],
)
def test_a_secret_is_base64url_with_or_without_padding(secret: str, key: bytes) -> None:
    assert decode_secret(secret) == key


@pytest.mark.parametrize("secret", ["", "=", "==", "A", "a+b/", "ab cd", "SmVmZQ===", "SmVm\n", "schlüssel", "SmV=mZQ"])
def test_what_can_be_no_secret_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(ValueError) as refusal:
        decode_secret(secret)
    assert len(secret) < 4 or secret not in str(refusal.value)
