"""What a list of deliverables changes: new files, fresh addresses, other content of what is stored already.

A deliverable that is not on the list any more stays as it is. Content that has changed becomes a version beside the
old one; whether it has changed is told by what JARAI announces, or, where that says nothing, by looking.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from service.core.deliverables import (
    Compare,
    Deliverable,
    Listed,
    contradicts,
    listed_again,
    newest_versions,
    next_version,
    wanted,
)
from service.core.observations import DownloadStored
from service.core.production import Link


@dataclass(frozen=True, slots=True)
class Outcome:
    """All deliverables as they are known now, the addresses to keep, and what was not known before."""

    deliverables: tuple[Deliverable, ...]
    links: tuple[Link, ...]
    news: tuple[Deliverable, ...]


def take_in(
    known: Sequence[Deliverable], listed: Iterable[Listed], told_at: datetime, *, remade: bool = False
) -> Outcome:
    """`told_at`: when JARAI made the list, by its clock. `remade`: the production was made again since the last one."""
    every = {one.key: one for one in known}
    newest = newest_versions(known)
    links: list[Link] = []
    news: list[Deliverable] = []
    for item in listed:
        one = newest.get(item.key)
        if one is not None and one.state == "failed" and (remade or _is_news(one, item, told_at)):
            one = fetch_again(one)
        if one is None or _is_another(one, item, told_at, remade):
            one = wanted(item) if one is None else _another(one, item)
            news.append(one)
        elif one.state == "wanted" and remade:
            one = replace(one, compare="head")  # somebody may be fetching what it was before
        fresher = one.link_expires_at is None or item.link_expires_at >= one.link_expires_at
        if one.state == "wanted" and fresher:
            links.append(Link(one.key, item.url, item.link_expires_at))
            one = listed_again(one, item, told_at)
        every[one.key] = newest[item.key] = one
    return Outcome(tuple(every.values()), tuple(links), tuple(news))


def fetch_again(one: Deliverable) -> Deliverable:
    """What follows when a person wants it compared with what JARAI has."""
    if one.state == "stored":
        return next_version(one, "bytes")
    return replace(
        one, state="wanted", attempts=0, corrupted=0, expired=0, error=None, link_expires_at=None, next_at=None
    )


def has_changed(fetched: DownloadStored, known: Deliverable) -> bool:
    """Whether a list that came while a file was fetched may mean another content than that which was fetched."""
    if fetched.listed_at is None or known.listed_at is None or fetched.listed_at == known.listed_at:
        return False
    announced = ((known.sha256, fetched.sha256), (known.md5, fetched.md5), (known.bytes, fetched.bytes))
    differs = any(None not in pair and pair[0] != pair[1] for pair in announced)
    return differs or known.place != fetched.place or known.compare != ""


def _is_another(one: Deliverable, item: Listed, told_at: datetime, remade: bool) -> bool:
    """Whether what is stored may be something else at JARAI by now. A list from before it was stored is no news."""
    return one.state == "stored" and (remade or _is_news(one, item, told_at))


def _is_news(one: Deliverable, item: Listed, told_at: datetime) -> bool:
    later = one.listed_at is None or told_at >= one.listed_at
    return later and (contradicts(one, item) or (one.place != "" and one.place != item.place))


def _another(one: Deliverable, item: Listed) -> Deliverable:
    compare: Compare = "" if contradicts(one, item) else "head"
    return next_version(one, compare)
