"""What must never be read by anyone else, and how it is taken out of a text.

Works on the finished text, so that it also covers exceptions, tracebacks and whatever a library says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[redacted]"

# Inside a JSON string a character may stand as \u0026: part of the secret, unlike the backslash before a quote.
_ESCAPED = r"\\+u[0-9a-fA-F]{4}"
_VALUE = rf"(?:[^&\s\"'<>\\\x00-\x1f]|{_ESCAPED})+"
_ADDRESS = re.compile(rf"://(?:[^\s\"'<>\\\x00-\x1f]|{_ESCAPED})+")
_RULES = (
    # A signature that stands alone, as in a relative address, an urllib3 message, or an encoded address.
    (re.compile(rf"(sig(?:nature)?(?:=|%(?:25)*3[dD])){_VALUE}", re.IGNORECASE), rf"\1{HIDDEN}"),
    # CONTRACT [seed][docs]: the prefix exists so that a leaked key can be found.
    (re.compile(r"jarai_[A-Za-z0-9_=-]{8,}"), HIDDEN),
    (re.compile(rf"\b(Bearer\s+){_VALUE}", re.IGNORECASE), rf"\1{HIDDEN}"),
)
# A text in which none of them is found, in any case, holds nothing to take out but values that are known from settings.
MARKS = ("://", "sig", "jarai_", "bearer")
_MAY_NEED_IT = re.compile("|".join(MARKS), re.IGNORECASE)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without addresses' queries, keys, tokens, and without any of `secrets` (values known from settings).

    Takes time in proportion to the text, whatever it holds; taking out twice changes nothing more.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if _MAY_NEED_IT.search(text) is None:
        return text
    text = _ADDRESS.sub(_without_secrets, text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _without_secrets(address: re.Match[str]) -> str:
    """An address from its `://` on, without its query and without a password before the host."""
    place, mark, query = address[0][3:].partition("?")
    host, slash, path = place.partition("/")
    host = f"{HIDDEN}@{host.rpartition('@')[2]}" if "@" in host else host
    return f"://{host}{slash}{path}" + (f"?{HIDDEN}" if mark and query else mark)
