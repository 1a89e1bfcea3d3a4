"""What must never be read by anyone else, and how it is taken out of a text.

Works on the finished text, so that it also covers exceptions, tracebacks and whatever a library says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[redacted]"

# Inside a JSON string a character may stand as \u0026: part of the secret, unlike the backslash before a quote.
_REST = r"(?:[^\s\"'<>\\]|\\+u[0-9a-fA-F]{4})+"
_VALUE = r"(?:[^&\s\"'<>\\]|\\+u[0-9a-fA-F]{4})+"

_RULES = (
    # An address: what follows the question mark (a SAS signature) and a password before the host.
    (re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'<>\\?#]*)\?" + _REST), rf"\1?{HIDDEN}"),
    (re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s\"'<>\\/@]*@"), rf"\1{HIDDEN}@"),
    # A signature that stands alone, as in a relative address or an urllib3 message.
    (re.compile(r"\b(sig(?:nature)?(?:=|%3[dD]))" + _VALUE, re.IGNORECASE), rf"\1{HIDDEN}"),
    # CONTRACT [seed][docs]: the prefix exists so that a leaked key can be found.
    (re.compile(r"\bjarai_[A-Za-z0-9_=-]{8,}"), HIDDEN),
    (re.compile(r"\b(Bearer\s+)" + _VALUE, re.IGNORECASE), rf"\1{HIDDEN}"),
)
_MAY_NEED_IT = re.compile(r"://|sig|jarai_|bearer", re.IGNORECASE)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without addresses' queries, keys, tokens, and without any of `secrets` (values known from settings)."""
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if _MAY_NEED_IT.search(text) is None:
        return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
