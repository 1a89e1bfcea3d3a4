"""Everything that was true, as JSON for whoever checks the receiver; no secrets, no signed addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from workers.simulator.delivery import Delivery
from workers.simulator.journal import ApiRequest, BlobRequest
from workers.simulator.simulation import Simulation, blob_path
from workers.simulator.world import Deliverable, Event, Production, iso


async def truth(simulation: Simulation) -> dict[str, object]:
    world = simulation.world
    return {
        "seed": simulation.settings.seed,
        "at": iso(datetime.now(UTC)),
        "productions": [await _production(simulation, each) for each in world.productions.values()],
        "otherEvents": [_event(simulation, event) for event in world.outside.events],
        "subscriptions": [
            {"webhookId": each.webhook_id, "endpointUrl": each.url} for each in simulation.sender.subscriptions.values()
        ],
        "apiRequests": [_api_request(each) for each in simulation.journal.api],
        "blobRequests": [_blob_request(each) for each in simulation.journal.blob],
        "counters": counters(simulation),
        "faults": simulation.faults.shown(),
    }


def counters(simulation: Simulation) -> dict[str, object]:
    deliveries = [each for several in simulation.sender.deliveries.values() for each in several]
    return {
        "productions": len(simulation.world.productions),
        "events": len(simulation.sender.deliveries),
        "deliveries": len(deliveries),
        "attempts": sum(len(each.attempts) for each in deliveries),
        "acknowledged": sum(each.acknowledged for each in deliveries),
        "pending": sum(each.pending for each in deliveries),
        "lost": sum(each.fate.lost for each in deliveries),
        "doubled": sum(each.fate.doubled for each in deliveries),
        "late": sum(each.fate.late_seconds > 0 for each in deliveries),
        "givenUp": sum(each.given_up for each in deliveries),
        **simulation.journal.counts,
        "blobBytes": sum(each.sent_bytes for each in simulation.journal.blob),
        "faultsStruck": dict(simulation.faults.struck),
    }


async def _production(simulation: Simulation, production: Production) -> dict[str, object]:
    code, message = production.error or (None, None)
    return {
        "productionId": production.production_id,
        "topic": production.topic,
        "accountId": production.account_id,
        "outcome": production.plan.outcome,
        "status": production.status,
        "terminalAt": iso(production.terminal_at) if production.terminal_at else None,
        "errorCode": code,
        "errorMessage": message,
        "deliverables": [await _file(simulation, production, each) for each in production.deliverables],
        "replaced": [await _file(simulation, production, each) for each in production.replaced],
        "events": [_event(simulation, event) for event in production.events],
    }


async def _file(simulation: Simulation, production: Production, deliverable: Deliverable) -> Mapping[str, object]:
    digests = await simulation.digests.of(deliverable.content)
    return {
        "deliverableId": deliverable.deliverable_id,
        "type": deliverable.type,
        "fileName": deliverable.file_name,
        "path": blob_path(production, deliverable),
        "version": deliverable.version,
        "bytes": deliverable.content.size_bytes,
        "sha256": digests.sha256.hex(),
        "md5": digests.md5.hex(),
    }


def _event(simulation: Simulation, event: Event) -> dict[str, object]:
    deliveries = simulation.sender.deliveries.get((event.production_id, event.sequence_number), [])
    return {
        "sequenceNumber": event.sequence_number,
        "eventType": event.event_type,
        "timestamp": iso(event.timestamp),
        "truncated": event.truncated,
        "deliveries": [_delivery(each) for each in deliveries],
    }


def _delivery(delivery: Delivery) -> dict[str, object]:
    return {
        "webhookId": delivery.subscription.webhook_id,
        "eventId": delivery.event_id,
        "lost": delivery.fate.lost,
        "doubled": delivery.fate.doubled,
        "lateSeconds": delivery.fate.late_seconds,
        "attempts": [
            {"copy": each.copy, "at": iso(each.sent_at), "status": each.status, "error": each.error}
            for each in delivery.attempts
        ],
        "lastStatus": delivery.attempts[-1].status if delivery.attempts else None,
        "acknowledged": delivery.acknowledged,
        "pending": delivery.pending,
        "givenUp": delivery.given_up,
    }


def _api_request(request: ApiRequest) -> dict[str, object]:
    return asdict(request) | {"at": iso(request.at)}


def _blob_request(request: BlobRequest) -> dict[str, object]:
    return {
        "at": iso(request.at),
        "method": request.method,
        "path": request.path,
        "range": request.range,
        "status": request.status,
        "bytes": request.sent_bytes,
        "complete": request.complete,
        "faults": list(request.faults),
    }
