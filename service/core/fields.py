"""What a person may fill in for JARAI, checked before anything is sent. Every function raises InvalidField."""

from __future__ import annotations

from uuid import UUID

from service.core.errors import InvalidField


def filled_in(field: str, value: object, most_characters: int = 10_000) -> str:
    """A text that says something and can be sent. Its length counts in characters, as JARAI's limits do."""
    if not isinstance(value, str):
        raise InvalidField(field, "is missing" if value is None else "has to be a text")
    if not value.strip():
        raise InvalidField(field, "is empty")
    if len(value) > most_characters:
        raise InvalidField(field, f"has {len(value):,} characters; at most {most_characters:,} are allowed")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidField(field, "holds what is no character") from None
    return value


def identity(field: str, value: object) -> str:
    """A UUID in its usual spelling."""
    given = filled_in(field, value)
    try:
        return str(UUID(given))
    except ValueError:
        raise InvalidField(field, "has to be a UUID, such as 3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11") from None
