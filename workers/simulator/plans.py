"""What a production is going to live through, decided before it starts. No clock, no dice and no network here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Outcome = Literal["Published", "Failed", "Cancelled", "Expired"]
Status = Literal["Queued", "Producing", "AwaitingApproval", "Distributing", "Published", "Failed", "Cancelled"]

TERMINAL: frozenset[str] = frozenset({"Published", "Failed", "Cancelled"})
WITH_DELIVERABLES: frozenset[str] = frozenset({"AwaitingApproval", "Distributing", "Published"})  # [seed]
EXPIRED = ("PRODUCTION_EXPIRED", "The production was not picked up before it expired.")
BROKEN = ("PIPELINE_STEP_FAILED", "A step of the pipeline failed.")


class JsonShape(BaseModel):
    """JSON in camelCase; a name that is not known is an error, so that a typo never passes for a wish."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class DeliverablePlan(JsonShape):
    """`checksum` adds that digest to the list of deliverables; `wrong` adds a sha256 that is not the file's."""

    type: str
    size_bytes: int = Field(1000, ge=0, validation_alias="bytes")
    file_name: str = ""
    checksum: Literal["", "md5", "sha256", "wrong"] = ""


DEFAULT_DELIVERABLES = (
    DeliverablePlan(type="Video", size_bytes=2_000_000),
    DeliverablePlan(type="ClosedCaptions", size_bytes=4_000),
    DeliverablePlan(type="Transcript", size_bytes=8_000),
    DeliverablePlan(type="AudioDescription", size_bytes=200_000),
    DeliverablePlan(type="ComplianceCertificate", size_bytes=20_000),
)


class Plan(JsonShape):
    """`hold` names a status that is not left before the production is released; "" holds nowhere."""

    outcome: Outcome = "Published"
    steps: Annotated[int, Field(ge=0)] = 4
    step_seconds: Annotated[float, Field(ge=0)] = 0.5
    phase_seconds: Annotated[float, Field(ge=0)] = 1.0
    hold: Status | Literal[""] = ""
    deliverables: tuple[DeliverablePlan, ...] = DEFAULT_DELIVERABLES


class Moment(JsonShape):
    """One thing that happens, `after_seconds` after the one before. Without an event type the status just changes."""

    after_seconds: float
    status: Status
    event_type: str = ""
    step: int = 0
    error: tuple[str, str] | None = None


def life(plan: Plan) -> Iterator[Moment]:
    """Everything that follows `Queued`. A production that fails or is cancelled does so half-way through its steps."""
    if plan.outcome == "Expired":
        yield Moment(after_seconds=plan.phase_seconds, status="Failed", event_type="production.failed", error=EXPIRED)
        return
    yield Moment(after_seconds=plan.phase_seconds, status="Producing")
    steps = plan.steps if plan.outcome == "Published" else plan.steps // 2
    for step in range(1, steps + 1):
        yield Moment(
            after_seconds=plan.step_seconds,
            status="Producing",
            event_type="production.step.complete",
            step=step,
        )
    yield from _ending(plan)


def _ending(plan: Plan) -> Iterator[Moment]:
    pause = plan.phase_seconds
    if plan.outcome == "Failed":
        yield Moment(after_seconds=pause, status="Failed", event_type="production.failed", error=BROKEN)
    elif plan.outcome == "Cancelled":
        yield Moment(after_seconds=pause, status="Cancelled")
    else:
        yield Moment(after_seconds=0, status="AwaitingApproval")
        yield Moment(after_seconds=0, status="AwaitingApproval", event_type="deliverable.ready")
        yield Moment(after_seconds=pause, status="Distributing")
        yield Moment(after_seconds=pause, status="Published", event_type="production.published")
