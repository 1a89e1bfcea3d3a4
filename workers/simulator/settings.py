"""How a simulator is started. What changes while it runs is a fault (see `faults`) or a plan (see `plans`)."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from workers.simulator.plans import DEFAULT_DELIVERABLES, DeliverablePlan, Outcome, Plan

SCOPES = frozenset(
    [
        "accounts:read",
        "productions:read",
        "productions:write",
        "deliverables:read",
        "analytics:read",
        "webhooks:read",
        "webhooks:write",
        "logs:read",
    ]
)


def made_api_key(prefix: str = "jarai_live_") -> str:
    return prefix + secrets.token_urlsafe(32)


def made_webhook_secret() -> str:
    """A signing secret as JARAI hands it out: base64url without padding."""
    return secrets.token_urlsafe(32)


def secret_bytes(webhook_secret: str) -> bytes:
    """The HMAC key in a signing secret; ValueError when it is not base64url."""
    text = webhook_secret.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


@dataclass(frozen=True, slots=True)
class Settings:
    """`port` 0 takes a free one. `public_url` is what addresses in answers begin with, if not the bound address.

    An empty `webhook_url` means no subscription at start. `faults` are start values for `faults.Faults`, on top
    of the three rates. `unknown_events` are the statuses whose event name is [open] and is sent under a made-up one.
    """

    host: str = "127.0.0.1"
    port: int = 0
    public_url: str = ""
    api_key: str = field(default_factory=made_api_key, repr=False)
    scopes: frozenset[str] = SCOPES
    webhook_url: str = ""
    webhook_secret: str = field(default_factory=made_webhook_secret, repr=False)
    tier: str = "unlimited"
    seed: int = field(default_factory=lambda: secrets.randbelow(2**32))
    loss: float = 0.0
    double: float = 0.0
    late: float = 0.0
    late_seconds: float = 3.0
    outcome: Outcome = "Published"
    steps: int = 4
    step_seconds: float = 0.5
    phase_seconds: float = 1.0
    deliverables: tuple[DeliverablePlan, ...] = DEFAULT_DELIVERABLES
    queue_seconds: float = 600.0
    sas_lifetime_seconds: float = 3600.0
    bare_deliverables: bool = False
    unknown_events: frozenset[str] = frozenset({"Cancelled"})
    webhook_timeout_seconds: float = 10.0
    webhook_tries: int = 9
    retry_base_seconds: float = 0.1
    faults: Mapping[str, object] = field(default_factory=dict)

    def plan(self) -> Plan:
        """What a production triggered through the Partner API lives through."""
        return Plan(
            outcome=self.outcome,
            steps=self.steps,
            step_seconds=self.step_seconds,
            phase_seconds=self.phase_seconds,
            deliverables=self.deliverables,
        )
