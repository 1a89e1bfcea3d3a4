"""Everything that can be learnt about a production. Nothing else moves one forward.

An observation lies in its production's inbox as JSON until `advance` has taken it in. Instants are aware UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from service.core.deliverables import Deliverable, Listed
from service.core.events import Event
from service.core.retry import Failure

Question = Literal["status", "deliverables", "trigger"]
MANIFEST = "manifest"  # stands where a deliverable's key would: the manifest is written like a file


@dataclass(frozen=True, slots=True)
class EventArrived:
    """A webhook. Kept as a reference to the archived body, so it has no JSON of its own.

    `replayed`: it was taken in before, and the timeline has it.
    """

    event: Event
    received_at: datetime
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class StatusAnswered:
    """JARAI's answer about the status. `as_of` is the answer's own `Date`, by JARAI's clock, to the second.

    `knew_sequence` is the highest sequence number taken in when the question was asked.
    """

    at: datetime
    as_of: datetime
    knew_sequence: int
    status: str
    account_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    expires_at: datetime | None = None
    sandbox: bool = False
    correlation_id: str | None = None
    kind: Literal["status"] = "status"


@dataclass(frozen=True, slots=True)
class DeliverablesAnswered:
    """JARAI's list of deliverables, with fresh addresses. `knew_terminal`: nothing could follow any more."""

    at: datetime
    knew_sequence: int
    listed: tuple[Listed, ...]
    as_of: datetime | None = None
    knew_terminal: bool = False
    sandbox: bool = False
    correlation_id: str | None = None
    kind: Literal["deliverables"] = "deliverables"


@dataclass(frozen=True, slots=True)
class AskFailed:
    """JARAI was asked and gave nothing of use. `final`: asking the same again does not help (a 4xx)."""

    at: datetime
    question: Question
    message: str
    code: str = ""
    final: bool = False
    correlation_id: str | None = None
    kind: Literal["ask_failed"] = "ask_failed"


@dataclass(frozen=True, slots=True)
class DownloadStored:
    """A file lies complete and verified under its final name. Digests are lower-case hex.

    `listed_at` and `place` are those of the list that the attempt went by: a newer one may have come meanwhile.
    """

    at: datetime
    key: str
    bytes: int
    sha256: str
    seconds: float
    md5: str | None = None
    etag: str | None = None
    listed_at: datetime | None = None
    place: str = ""
    kind: Literal["stored"] = "stored"


@dataclass(frozen=True, slots=True)
class DownloadSame:
    """What JARAI has is what lies there already. `repaired`: it did not lie there whole, and does now."""

    at: datetime
    key: str
    repaired: bool = False
    etag: str | None = None
    kind: Literal["same"] = "same"


@dataclass(frozen=True, slots=True)
class FileDamaged:
    """A stored file (or the manifest) is not what it was, and has been taken out of its place."""

    at: datetime
    key: str
    problem: str
    kind: Literal["damaged"] = "damaged"


@dataclass(frozen=True, slots=True)
class DownloadFailed:
    """An attempt at a file (or at the manifest) ended without it. `progressed`: bytes were gained all the same.

    `link_expires_at` is that of the address that was tried, and tells it from a fresher one. `kept`: where the bytes
    that were refused lie, for a person to look at.
    """

    at: datetime
    key: str
    failure: Failure
    message: str
    progressed: bool = False
    link_expires_at: datetime | None = None
    kept: str | None = None
    kind: Literal["download_failed"] = "download_failed"


@dataclass(frozen=True, slots=True)
class ManifestWritten:
    """The manifest on disk tells what was known at `revision`."""

    at: datetime
    revision: int
    kind: Literal["manifest"] = "manifest"


@dataclass(frozen=True, slots=True)
class OperatorAsked:
    """A person or a partner's system wants something. `key` names one deliverable; empty means all.

    `replay`: the kept events follow, and what was made of them before is to be forgotten. `track` of what was triggered
    from here: should it expire, `body` (the JSON that was sent) is to be triggered again, at most `retries_left` times.
    `retry_of`: it is such a one, and the first of them.
    """

    at: datetime
    wish: Literal["track", "refresh", "retry", "replay", "redownload"]
    account_id: str | None = None
    key: str = ""
    triggered: bool = False  # from here, as what is to be tracked
    body: str = ""
    retries_left: int = 0
    retry_of: str | None = None
    kind: Literal["operator"] = "operator"


@dataclass(frozen=True, slots=True)
class Retriggered:
    """It had expired, and JARAI has started another in its place."""

    at: datetime
    started_id: str
    kind: Literal["retriggered"] = "retriggered"


@dataclass(frozen=True, slots=True)
class ManifestFound:
    """A manifest that lies in the storage folder, and the files of its list that lie there whole.

    `settled`: it says that nothing will be added, and no file of it is missing.
    """

    at: datetime
    account_id: str | None
    folder: str
    status: str | None
    settled: bool
    sandbox: bool
    deliverables: tuple[Deliverable, ...]
    kind: Literal["manifest_found"] = "manifest_found"


Written = (
    StatusAnswered
    | DeliverablesAnswered
    | AskFailed
    | DownloadStored
    | DownloadSame
    | DownloadFailed
    | FileDamaged
    | ManifestWritten
    | OperatorAsked
    | Retriggered
    | ManifestFound
)
Beginning = OperatorAsked | ManifestFound  # what a production may begin with, beside its first webhook
Observation = EventArrived | Written

_JSON: TypeAdapter[Written] = TypeAdapter(Annotated[Written, Field(discriminator="kind")])


def result_of(observation: Observation) -> str:
    """The key of the file (or MANIFEST) that somebody has just worked on; empty where nobody has."""
    match observation:
        case DownloadStored() | DownloadSame() | DownloadFailed():
            return observation.key
        case ManifestWritten() | ManifestFound():
            return MANIFEST
        case _:
            return ""


def to_json(observation: Written) -> bytes:
    """The observation as it lies in the inbox."""
    return _JSON.dump_json(observation)


def from_json(data: bytes) -> Written:
    """The observation from the inbox. Raises ValueError when it was written by nothing of ours."""
    return _JSON.validate_json(data)
