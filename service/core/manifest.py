"""`manifest.json`: what lies beside it complete, and, were Redis lost, what a production is known by."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from service.core.deliverables import Deliverable, current_files
from service.core.observations import ManifestFound
from service.core.production import Production
from service.core.view import instant

FILE = "manifest.json"
_FILE = re.compile(r"[A-Za-z0-9-]+(?:_[A-Za-z0-9-]+)?_([0-9a-f]{16})(?:\.[a-z0-9]{1,10})?")


class Entry(BaseModel):
    """A stored file. `key` is the part of its name that tells it from all others of its production."""

    id: str
    type: str
    file: Annotated[str, Field(pattern=rf"^{_FILE.pattern}$")]
    size_bytes: Annotated[int, Field(alias="bytes", ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    stored_at: Annotated[AwareDatetime, Field(alias="storedAt")]
    version: Annotated[int, Field(ge=1)] = 1
    version_of: Annotated[str, Field(alias="versionOf", pattern=r"^([0-9a-f]{16})?$")] = ""

    @property
    def key(self) -> str:
        match = _FILE.fullmatch(self.file)
        assert match is not None
        return match[1]


class Manifest(BaseModel):
    """A manifest as it lies in a folder."""

    production_id: Annotated[UUID, Field(alias="productionId")]
    account_id: Annotated[str | None, Field(alias="accountId")]
    status: str | None
    settled: bool
    sandbox: bool
    deliverables: tuple[Entry, ...]

    def found(self, folder: str, sizes: Mapping[str, int], at: datetime) -> ManifestFound:
        """What it tells of its production. `sizes`: bytes of each file that lies beside it."""
        whole = [one for one in self.deliverables if sizes.get(one.file) == one.size_bytes]
        return ManifestFound(
            at=at,
            account_id=self.account_id,
            folder=folder,
            status=self.status,
            settled=self.settled and len(whole) == len(self.deliverables),
            sandbox=self.sandbox,
            deliverables=tuple(
                Deliverable(
                    key=one.key,
                    id=one.id,
                    type=one.type,
                    file=one.file,
                    state="stored",
                    bytes=one.size_bytes,
                    sha256=one.sha256,
                    stored_at=one.stored_at,
                    version=one.version,
                    of=one.version_of,
                )
                for one in whole
            ),
        )


def to_fetch_again(told: Manifest, whole: Container[str]) -> list[str]:
    """The key of each newest version that lies there whole although a newer one was stored, and is not whole any more.

    What JARAI has now has to be held against it: the older one is not the current one.
    """
    versions: dict[str, list[Entry]] = {}
    for one in sorted(told.deliverables, key=lambda one: one.version):
        versions.setdefault(one.version_of or one.key, []).append(one)
    found = []
    for family in versions.values():
        there = [one for one in family if one.file in whole]
        if there and family[-1].file not in whole:
            found.append(there[-1].key)
    return found


def parse(content: bytes) -> Manifest:
    """Raises ValueError when it is no manifest of ours."""
    return Manifest.model_validate_json(content)


def describe(production: Production) -> dict[str, Any]:
    """The manifest of a production: only what lies there complete. `settled`: nothing will be added."""
    current = current_files(production.deliverables)
    return {
        "productionId": production.production_id,
        "accountId": production.account_id,
        "status": production.status,
        "settled": production.complete,
        "sandbox": production.sandbox,
        "deliverables": [_entry(one, one.key in current) for one in production.deliverables if one.state == "stored"],
    }


def _entry(one: Deliverable, current: bool) -> dict[str, Any]:
    entry = {
        "id": one.id,
        "type": one.type,
        "file": one.file,
        "bytes": one.bytes,
        "sha256": one.sha256,
        "storedAt": instant(one.stored_at),
        "version": one.version,
        "current": current,
    }
    return entry | {"versionOf": one.of} if one.of else entry
