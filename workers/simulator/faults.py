"""What goes wrong on purpose, when, and by which seeded dice. Doing it is up to whoever asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Annotated

from pydantic import Field, TypeAdapter

from workers.simulator.plans import JsonShape
from workers.simulator.settings import Settings

# Each name with what its `value` means and is when nobody says otherwise.
DEFAULT_VALUES: Mapping[str, float] = {
    "loss": 0,
    "double": 0,
    "late": 3.0,  # seconds, at most
    "api_500": 0,
    "api_503": 0,
    "api_429": 1,  # retryAfterSeconds
    "api_budget_gate": 0,  # 409 BUDGET_GATE_1_FAILED
    "api_account_inactive": 0,  # 403 ACCOUNT_NOT_ACTIVE
    "api_partner_inactive": 0,  # 403 PARTNER_NOT_ACTIVE
    "api_slow": 1.0,  # seconds
    "api_garbage": 0,  # the call takes effect, the body of the answer is broken JSON
    "api_drop": 0,  # the call takes effect, the connection ends without an answer
    "blob_expired": 0,
    "blob_500": 0,
    "blob_503": 0,
    "blob_cut": 0,  # bytes after which the connection ends; 0: half of what was asked for
    "blob_corrupt": 0,  # offset of the wrong byte in the file; 0: in the middle of what was asked for
    "blob_slow": 1_000_000,  # bytes a second
    "blob_ignore_range": 0,  # 200 with the whole file
    "blob_short": 0,  # bytes missing at the end, with a Content-Length to match; 0: half
}


class Fault(JsonShape):
    """Strikes the `next` times for sure and else by `rate`; only where `match` is part of the path or event type."""

    rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    next: Annotated[int, Field(ge=0)] = 0
    value: Annotated[float, Field(ge=0)] = 0.0
    match: str = ""


_CHANGES: TypeAdapter[dict[str, float | dict[str, object]]] = TypeAdapter(dict[str, float | dict[str, object]])


class Faults:
    """All faults by name, changeable while running. Webhook faults depend on seed and key alone, not on timing."""

    def __init__(self, settings: Settings) -> None:
        self._seed = settings.seed
        self._dice = {name: Random(f"{settings.seed}:{name}") for name in DEFAULT_VALUES}
        self._faults = {name: Fault(value=value) for name, value in DEFAULT_VALUES.items()}
        self.struck: Counter[str] = Counter()
        late = {"rate": settings.late, "value": settings.late_seconds}
        self.change({"loss": settings.loss, "double": settings.double, "late": late, **settings.faults})

    def change(self, wanted: object) -> None:
        """A bare number is a rate, an object sets what it names. ValueError, and nothing changed, when it can't be."""
        changes = _CHANGES.validate_python(wanted)
        if unknown := changes.keys() - self._faults.keys():
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        self._faults |= {name: self._changed(name, change) for name, change in changes.items()}

    def strikes(self, name: str, subject: str = "", key: str = "") -> Fault | None:
        """The fault, if it strikes now. With a key the dice are thrown for that key, whenever it is asked."""
        fault = self._faults[name]
        if fault.match not in subject:
            return None
        if fault.next:
            self._faults[name] = fault.model_copy(update={"next": fault.next - 1})
        elif self.dice(name, key).random() >= fault.rate:
            return None
        self.struck[name] += 1
        return fault

    def dice(self, name: str, key: str = "") -> Random:
        return Random(f"{self._seed}:{name}:{key}") if key else self._dice[name]

    def shown(self) -> dict[str, object]:
        return {name: fault.model_dump() for name, fault in self._faults.items()}

    def _changed(self, name: str, change: float | dict[str, object]) -> Fault:
        named = change if isinstance(change, dict) else {"rate": change}
        return Fault.model_validate(self._faults[name].model_dump() | named)
