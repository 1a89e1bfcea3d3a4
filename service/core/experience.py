"""What the productions before teach about the next one: how long silence is usual, and which holes are always there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from pydantic import TypeAdapter

from service.core.events import STATUSES

_ENOUGH_GAPS = 20
_ENOUGH_HOLES = 10
_MOST_TYPES = 32
_SHARE = 0.9  # of all gaps are shorter than what is called usual
_STEP = 0.12  # of the logarithm: how fast an estimate follows
_SHORTEST_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Usual:
    """Nine of ten gaps between two events are shorter than `seconds`; learnt from `count` of them."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Experience:
    """`gaps` by the status in which a production was silent. `holes` by the type of the event: how many times in a row
    a number was missing right before it.
    """

    gaps: Mapping[str, Usual] = field(default_factory=dict)
    holes: Mapping[str, int] = field(default_factory=dict)

    def usual_silence(self, status: str | None) -> timedelta | None:
        """How long a production is usually silent in this status at most; None: too little is known."""
        known = self.gaps.get(status or "")
        return timedelta(seconds=known.seconds) if known is not None and known.count >= _ENOUGH_GAPS else None

    def always_missing_before(self, event_type: str) -> bool:
        """Whether a hole before such an event means nothing: the subscription lacks an event type."""
        return self.holes.get(event_type, 0) >= _ENOUGH_HOLES

    def after(self, gaps: Iterable[tuple[str, float]], preceded: Iterable[tuple[str, bool]]) -> Experience:
        """Having seen these silences (status, seconds), and these events (type, whether a number before it is missing).

        One event without a hole before it shows that its type is not always preceded by one.
        """
        learnt = dict(self.gaps)
        for status, seconds in gaps:
            if status in STATUSES:
                learnt[status] = _followed(learnt.get(status), max(_SHORTEST_SECONDS, seconds))
        holes = dict(self.holes)
        for event_type, hole in preceded:
            if event_type in holes or len(holes) < _MOST_TYPES:
                holes[event_type] = min(holes.get(event_type, 0) + 1, _ENOUGH_HOLES) if hole else 0
        return replace(self, gaps=learnt, holes=holes)


def _followed(before: Usual | None, seconds: float) -> Usual:
    """The estimate of the 90th percentile, moved a little towards what was seen."""
    if before is None:
        return Usual(1, seconds)
    step = _STEP * (_SHARE if seconds > before.seconds else _SHARE - 1)
    moved = before.seconds * math.exp(step)
    return Usual(before.count + 1, min(moved, seconds) if seconds > before.seconds else max(moved, seconds))


_JSON: TypeAdapter[Experience] = TypeAdapter(Experience)


def to_json(experience: Experience) -> bytes:
    return _JSON.dump_json(experience)


def from_json(data: bytes) -> Experience:
    """Raises ValueError when it was written by nothing of ours."""
    return _JSON.validate_json(data)
