"""What is going to happen, and when: a pure function of a seed and a length. Doing it is up to `stage`.

Each lane is a sequence of stretches that do not overlap, by dice of its own; lanes run side by side. Every stretch ends
before the plan does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

WEBS = ("web-1", "web-2")
PROCESSES = (*WEBS, "advance-1", "advance-2", "download-1", "download-2", "download-3", "poller-1", "poller-2")
EVERYTHING = "everything"  # stands where a process would: all of them, and Redis

StoreTrouble = Literal["kill", "restart", "freeze", "read_only", "full", "cut"]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Signal:
    at: float
    process: str
    name: Literal["KILL", "TERM"]
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"SIG{self.name} {self.process}"


@dataclass(frozen=True, slots=True)
class Freeze:
    """SIGSTOP, and SIGCONT `seconds` later."""

    at: float
    process: str
    seconds: float

    def __str__(self) -> str:
        return f"freeze {self.process} {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Store:
    """Redis: killed and away for `seconds`, restarted by SIGTERM, stopped, a replica, out of memory, or cut off."""

    at: float
    trouble: StoreTrouble
    seconds: float

    def __str__(self) -> str:
        return f"redis {self.trouble} {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the simulated JARAI: by chance (`rate`), or the `next` times for sure."""

    at: float
    name: str
    seconds: float
    rate: float = 0.0
    next: int = 0
    value: float | None = None

    def __str__(self) -> str:
        how = f"next {self.next}" if self.next else f"rate {self.rate:g}"
        return f"{self.name} {self.seconds:g} s {how}" + ("" if self.value is None else f" value {self.value:g}")


@dataclass(frozen=True, slots=True)
class File:
    type: str
    bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Production:
    outcome: str
    steps: int
    step_seconds: float
    phase_seconds: float
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Start:
    at: float
    productions: tuple[Production, ...]
    seconds: float = 0.0

    def __str__(self) -> str:
        outcomes = Counter(one.outcome for one in self.productions)
        files = [file for one in self.productions for file in one.files]
        size = sum(file.bytes for file in files) / 1e6
        return f"start {' '.join(f'{n} {name}' for name, n in outcomes.items())}, {len(files)} files, {size:.1f} MB"


Action = Signal | Freeze | Store | Fault | Start

_OUTCOMES = ("Published",) * 7 + ("Failed", "Cancelled", "Expired")
_TYPES = ("Video", "Video", "ClosedCaptions", "Transcript", "AudioDescription", "ComplianceCertificate")
_POWERS: tuple[Span, ...] = ((2.4, 4), (5, 6.6))  # of ten: as small as a film can be, or up to four megabytes
_TROUBLES: tuple[StoreTrouble, ...] = ("kill", "restart", "freeze", "read_only", "full", "cut")
_INSTANT: frozenset[StoreTrouble] = frozenset({"restart", "cut"})
# A claim on a download holds for 30 s: in a plan that has the time, somebody is frozen for longer.
_LONGER_THAN_A_CLAIM: Span = (31.0, 35.0)


def plan(seed: int, seconds: float) -> tuple[Action, ...]:
    """Everything that happens, in the order of its beginning. The same for the same seed and length."""
    lanes = (_trickle, _bursts, _signals, _freezes, _store, _webhooks, _api, _blobs, _slow_blobs)
    actions = [action for lane in lanes for action in lane(Random(f"{seed}:{lane.__name__}"), seconds)]
    return tuple(sorted(actions, key=lambda action: action.at))


def show(actions: tuple[Action, ...]) -> str:
    return "\n".join(f"{action.at:7.2f}  {action}" for action in actions)


def _stretches(dice: Random, seconds: float, pause: Span, length: Span) -> Iterator[Span]:
    """Beginning and length of one stretch after the other, as far as they end in time."""
    at = dice.uniform(*pause)
    while True:
        span = round(dice.uniform(*length), 2)
        if at + span > seconds:
            return
        yield round(at, 2), span
        at += span + dice.uniform(*pause)


def _trickle(dice: Random, seconds: float) -> Iterator[Action]:
    for at, _ in _stretches(dice, seconds, (0.3, 3.0), (0, 0)):
        yield Start(at, (_production(dice),))


def _bursts(dice: Random, seconds: float) -> Iterator[Action]:
    for at, _ in _stretches(dice, seconds, (5, 25), (0, 0)):
        yield Start(at, tuple(_production(dice) for _ in range(dice.randint(6, 14))))


def _signals(dice: Random, seconds: float) -> Iterator[Action]:
    for at, _ in _stretches(dice, seconds, (0.3, 3.5), (0, 0)):
        everything = dice.random() < 0.04
        process = EVERYTHING if everything else dice.choice(PROCESSES)
        yield Signal(at, process, "TERM" if dice.random() < 0.3 else "KILL")


def _freezes(dice: Random, seconds: float) -> Iterator[Action]:
    for at, span in _stretches(dice, seconds, (1, 5), (0.5, 7)):
        long = round(dice.uniform(*_LONGER_THAN_A_CLAIM), 2)
        if dice.random() < 0.15 and at + long <= seconds:
            yield Freeze(at, dice.choice([name for name in PROCESSES if "download" in name]), long)
            return
        yield Freeze(at, dice.choice(PROCESSES), span)


def _store(dice: Random, seconds: float) -> Iterator[Action]:
    for at, span in _stretches(dice, seconds, (2, 9), (0.3, 5)):
        trouble = dice.choice(_TROUBLES)
        yield Store(at, trouble, 0.0 if trouble in _INSTANT else span)


def _webhooks(dice: Random, seconds: float) -> Iterator[Action]:
    for at, span in _stretches(dice, seconds, (1, 6), (3, 9)):
        name, rate = dice.choice([("loss", 0.4), ("loss", 1.0), ("double", 0.5), ("late", 0.6)])
        yield Fault(at, name, span, rate, value=round(dice.uniform(1, 4), 2) if name == "late" else None)


def _api(dice: Random, seconds: float) -> Iterator[Action]:
    for at, span in _stretches(dice, seconds, (1, 5), (1, 6)):
        name = dice.choice(["api_429", "api_500", "api_503", "api_slow", "api_garbage", "api_drop"])
        value = {"api_429": 1.0, "api_slow": round(dice.uniform(0.3, 2), 2)}.get(name)
        yield Fault(at, name, span, dice.choice([0.5, 1.0]), value=value)


def _blobs(dice: Random, seconds: float) -> Iterator[Action]:
    """Wrong bytes come a few times and not for a stretch: four in a row for one file would rightly be given up."""
    names = ["cut", "corrupt", "expired", "500", "503", "short", "ignore_range"]
    for at, span in _stretches(dice, seconds, (0.5, 4), (1, 6)):
        name = f"blob_{dice.choice(names)}"
        if name in ("blob_corrupt", "blob_short"):
            yield Fault(at, name, span, next=dice.randint(1, 2))
        else:
            yield Fault(at, name, span, dice.choice([0.3, 0.6]))


def _slow_blobs(dice: Random, seconds: float) -> Iterator[Action]:
    """So that much of what ends processes ends them in the middle of a file."""
    for at, span in _stretches(dice, seconds, (0.5, 4), (4, 12)):
        yield Fault(at, "blob_slow", span, dice.choice([0.5, 1.0]), value=float(dice.randint(200_000, 1_500_000)))


def _production(dice: Random) -> Production:
    files = tuple(
        File(dice.choice(_TYPES), int(10 ** dice.uniform(*dice.choice(_POWERS))), dice.choice(["", "md5", "sha256"]))
        for _ in range(dice.choice([1, 1, 2, 3, 5]))
    )
    step, phase = round(dice.uniform(0.05, 0.8), 2), round(dice.uniform(0.1, 1.5), 2)
    return Production(dice.choice(_OUTCOMES), dice.randint(1, 4), step, phase, files)
