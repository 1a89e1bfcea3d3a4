"""Webhook signatures: who sent this body? CONTRACT [docs]: `X-JARAI-Signature: sha256=<hex>`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence

from service.core.errors import InvalidSignature, UnknownKey

HEADER = b"x-jarai-signature"
_HEADER_VALUE = re.compile(rb"sha256=([0-9a-fA-F]{64})")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")


def decode_secret(secret: str) -> bytes:
    """The key for the HMAC from a signing secret as JARAI shows it (base64url, padding optional).

    Raises ValueError, without the secret in it, when it can't be one.
    """
    if not _BASE64URL.fullmatch(secret):
        raise ValueError("is not base64url")
    bare = secret.rstrip("=")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        raise ValueError("is not base64url") from None


def fingerprint(key: bytes) -> str:
    """Stands for a key where the key itself must not: twelve hex digits, from which nobody gets back to it."""
    return hashlib.sha256(b"jarai-receiver signing key " + key).hexdigest()[:12]


def verify(body: bytes, header: bytes | None, keys: Sequence[bytes]) -> int:
    """Accept a body that was signed with any of `keys`, and say with which; raise InvalidSignature otherwise
    (UnknownKey where it is well-formed).

    Every key is tried whatever the outcome, so the time taken tells nothing about which one matched.
    """
    if header is None:
        raise InvalidSignature("there is no X-JARAI-Signature header")
    match = _HEADER_VALUE.fullmatch(header.strip())
    if match is None:
        raise InvalidSignature("X-JARAI-Signature is not of the form sha256=<64 hex digits>")
    given = bytes.fromhex(match[1].decode())
    genuine = -1
    for place, key in enumerate(keys):
        if hmac.compare_digest(hmac.digest(key, body, "sha256"), given):
            genuine = place
    if genuine < 0:
        raise UnknownKey("X-JARAI-Signature matches none of the configured secrets")
    return genuine
