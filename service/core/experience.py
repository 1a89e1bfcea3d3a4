"""What the productions before teach about the next one: how long silence is usual, and which holes are always there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from pydantic import TypeAdapter

from service.core.events import KNOWN_TYPES, STATUSES

_ENOUGH_GAPS = 20
_ENOUGH_HOLES = 10
_MOST_TYPES = 32  # beside the documented ones
_SHARE = 0.9  # of all gaps are shorter than what is called usual
_STEP = 0.12  # of the logarithm: how fast an estimate follows
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.001, 3600.0  # what is longer teaches no more than that


@dataclass(frozen=True, slots=True)
class Usual:
    """Nine of ten gaps between two events are shorter than `seconds`; learnt from `count` of them."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Hole:
    """`times` in a row numbers were missing before such an event, the last `alike` times `size` of them."""

    times: int
    size: int
    alike: int


@dataclass(frozen=True, slots=True)
class Experience:
    """`gaps` by the status in which a production was silent, `holes` by the type of the event that follows them."""

    gaps: Mapping[str, Usual] = field(default_factory=dict)
    holes: Mapping[str, Hole] = field(default_factory=dict)

    def usual_silence(self, status: str | None) -> timedelta | None:
        """How long a production is usually silent in this status at most; None: too little is known."""
        known = self.gaps.get(status or "")
        return timedelta(seconds=known.seconds) if known is not None and known.count >= _ENOUGH_GAPS else None

    def always_missing_before(self, event_type: str) -> bool:
        """Whether something is missing before each such event: the subscription lacks an event type."""
        known = self.holes.get(event_type)
        return known is not None and known.times >= _ENOUGH_HOLES

    def unsubscribed(self, event_type: str, missing: int) -> int:
        """How many of the numbers that are missing before such an event always are; the rest got lost.

        Where it is not always as many, all of them may.
        """
        if not self.always_missing_before(event_type):
            return 0
        known = self.holes[event_type]
        return min(missing, known.size) if known.alike >= _ENOUGH_HOLES else missing

    def is_always_so(self, event_type: str, missing: int) -> bool:
        """Whether before such an event exactly so many numbers are missing each time."""
        known = self.holes.get(event_type)
        return known is not None and known.alike >= _ENOUGH_HOLES and known.size == missing

    def after(self, gaps: Iterable[tuple[str, float]], preceded: Iterable[tuple[str, int]]) -> Experience:
        """Having seen these silences (status, seconds), and these events (type, how many are missing before it).

        One event without a hole before it shows that its type is not always preceded by one.
        """
        learnt = dict(self.gaps)
        for status, seconds in gaps:
            if status in STATUSES:
                within = min(max(_SHORTEST_SECONDS, seconds), _LONGEST_SECONDS)
                learnt[status] = _followed(learnt.get(status), within)
        holes = dict(self.holes)
        for event_type, missing in preceded:
            if event_type in KNOWN_TYPES or event_type in holes or len(holes) < _MOST_TYPES:
                holes[event_type] = _counted(holes.get(event_type), missing)
        return replace(self, gaps=learnt, holes=holes)


def _counted(before: Hole | None, missing: int) -> Hole:
    if before is None or missing == 0:
        return Hole(min(missing, 1), missing, min(missing, 1))
    alike = before.alike + 1 if missing == before.size else 1
    return Hole(min(before.times + 1, _ENOUGH_HOLES), missing, min(alike, _ENOUGH_HOLES))


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
