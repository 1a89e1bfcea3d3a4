"""Any order, loss or doubling of one history, polls in between, then a last poll: it ends in the truth.

A history is what happened at JARAI. A delivery is what becomes of its webhooks, together with the polls: the truth as
of the moment of asking, taken in whenever the answer comes.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.core.advance import advance
from service.core.observations import MANIFEST, EventArrived, Observation, StatusAnswered
from service.core.production import FAILED, LIFE, TERMINAL, Production, from_json, to_json
from tests.core.given import INTERVALS, NEW, answered, arrived, at, item, ready


@dataclass(frozen=True)
class History:
    """What happened at JARAI: its events in order, and from which second on which status was the truth."""

    events: tuple[EventArrived, ...]
    truth: tuple[tuple[float, str], ...]

    def status_at(self, second: float) -> str:
        return self.truth[max(0, bisect.bisect_right([since for since, _ in self.truth], second) - 1)][1]

    @property
    def ends_at(self) -> float:
        return max([self.truth[-1][0], *(_second(event) for event in self.events)])


def _second(event: EventArrived) -> float:
    return (event.event.timestamp - at(0)).total_seconds()


@st.composite
def histories(draw: st.DrawFn, *, forward_only: bool = False) -> History:
    """A legal life: the states in order, perhaps back after a rejection, perhaps a state nobody knows."""
    gap = st.sampled_from([0.0, 0.2, 0.9, 1.0, 7.0, 40.0])
    events: list[EventArrived] = []
    truth: list[tuple[float, str]] = []
    second = 1.0

    def happens(event_type: str | None, status: str | None = None, **fields: Any) -> None:
        nonlocal second
        second += draw(gap)
        if status is not None:
            truth.append((second, status))
        if event_type == "deliverable.ready":
            items = [item(name) for name in draw(st.lists(st.sampled_from("abc"), max_size=3))]
            events.append(ready(len(events) + 1, *items, truncated=draw(st.booleans()), happened=second))
        elif event_type is not None:
            events.append(arrived(event_type, len(events) + 1, happened=second, **fields))

    def works() -> None:
        happens(None, "Producing")
        for _ in range(draw(st.integers(0, 4))):
            happens("production.step.complete")

    happens("production.queued", "Queued", data={"status": "Queued"})
    end = draw(st.sampled_from(["Published", "Failed", "Cancelled"]))
    reaches = draw(st.integers(0, 3)) if end != "Published" else 3
    if reaches > 0:
        works()
    if reaches > 1:
        happens(draw(st.sampled_from([None, "production.unheard"])), "AwaitingApproval")
        happens("deliverable.ready")
        if not forward_only and draw(st.booleans()):
            works()
            happens(None, draw(st.sampled_from(["AwaitingApproval", "Rendering4K"])))
            happens("deliverable.ready")
    if reaches > 2:
        stated = draw(st.sampled_from([None, {"status": "Distributing"}]))
        happens("production.step.complete" if stated else None, "Distributing", data=stated)
    if draw(st.integers(0, 4)):
        named = {
            "Published": "production.published",
            "Failed": "production.failed",
            "Cancelled": "production.cancelled",
        }
        happens(named[end], end)
    return History(tuple(events), tuple(truth))


@dataclass
class Receiver:
    """One production here: an inbox, the state last committed, and a clock that follows what arrives."""

    history: History
    known: Production = NEW
    clock: float = 0.0
    inbox: list[Observation] = field(default_factory=list)

    def receive(self, event: EventArrived) -> None:
        self.clock = max(self.clock, _second(event))
        self.inbox.append(EventArrived(event.event, at(self.clock)))

    def ask(self, later: float) -> StatusAnswered:
        self.clock = max(self.clock, self.history.truth[0][0]) + later
        return answered(self.history.status_at(self.clock), self.clock, knew=self.known.sequence)

    def take_in(self) -> None:
        """One step of `advance`, with every promise that holds for any step."""
        before = self.known
        step = advance(before, self.inbox, at(self.clock), INTERVALS)
        after = step.production
        fails = after.status in FAILED and before.status != after.status
        assert [one.type for one in step.notices] == ["production.failed"] * fails
        assert not before.terminal or after.status == before.status
        assert {one.key for one in before.deliverables} <= {one.key for one in after.deliverables}
        assert from_json(to_json(after)) == after
        again = advance(after, self.inbox, at(self.clock), INTERVALS)
        twice = again.production
        assert again.notices == ()
        assert (twice.status, twice.deliverables, twice.sequence) == (after.status, after.deliverables, after.sequence)
        self.known, self.inbox = after, []


def deliver(data: st.DataObject, history: History, *, in_order_of_asking: bool) -> list[Production]:
    """Deliver in any order, with losses and doublings, in any batches, polls in between; each state on the way."""
    receiver = Receiver(history)
    states = [receiver.known]
    on_the_way: list[StatusAnswered] = []
    chosen: st.SearchStrategy[EventArrived | float] = st.sampled_from(history.events) | st.floats(0, 30)
    for what in data.draw(st.lists(chosen, max_size=14)):
        if isinstance(what, EventArrived):
            receiver.receive(what)
        else:
            on_the_way.append(receiver.ask(what))
        for _ in range(data.draw(st.integers(0, len(on_the_way)))):
            place = 0 if in_order_of_asking else data.draw(st.integers(0, len(on_the_way) - 1))
            receiver.inbox.append(on_the_way.pop(place))
        if data.draw(st.booleans()):
            receiver.take_in()
            states.append(receiver.known)
    receiver.inbox += on_the_way
    receiver.take_in()
    states.append(receiver.known)
    receiver.clock = max(receiver.clock, history.ends_at)
    receiver.inbox.append(receiver.ask(2.0))
    receiver.take_in()
    return [*states, receiver.known]


@given(histories(), st.data())
def test_whatever_becomes_of_the_webhooks_the_last_poll_ends_in_the_truth(
    history: History, data: st.DataObject
) -> None:
    last = deliver(data, history, in_order_of_asking=True)[-1]
    assert last.status == history.truth[-1][1]
    assert last.terminal is (last.status in TERMINAL)


@given(histories(forward_only=True), st.data())
def test_a_production_that_only_moves_forward_at_jarai_never_moves_back_here(
    history: History, data: st.DataObject
) -> None:
    ranks = [-1 if known.status is None else LIFE.index(known.status)
             for known in deliver(data, history, in_order_of_asking=True)]  # fmt: skip
    assert ranks == sorted(ranks)


@given(histories(forward_only=True), st.data())
def test_not_even_answers_that_overtake_each_other_move_it_back(history: History, data: st.DataObject) -> None:
    ranks = [-1 if known.status is None else LIFE.index(known.status)
             for known in deliver(data, history, in_order_of_asking=False)]  # fmt: skip
    assert ranks == sorted(ranks)


@given(histories(), st.data())
def test_every_deliverable_of_every_event_that_came_is_known_in_the_end(history: History, data: st.DataObject) -> None:
    came = data.draw(st.lists(st.sampled_from(history.events), max_size=10))
    receiver = Receiver(history)
    for event in came:
        receiver.receive(event)
        if data.draw(st.booleans()):
            receiver.take_in()
    receiver.take_in()
    listed = {one["id"] for each in came for one in (each.event.data or {}).get("deliverables", ())}
    assert {one.id for one in receiver.known.deliverables} == listed


@given(
    st.integers(0, 8),
    st.lists(st.floats(0.1, 80), min_size=12, max_size=12),
    st.floats(0, 0.5),
    st.sampled_from([0, 1]),
    st.booleans(),
)
def test_a_production_whose_webhooks_all_arrive_costs_no_request_before_they_fall_silent(
    steps: int, gaps: Sequence[float], delay: float, first_number: int, published: bool
) -> None:
    """Also while its files are fetched: the addresses came with the event."""
    types = ["production.queued", *["production.step.complete"] * steps, "deliverable.ready"]
    types += ["production.published"] if published else []
    known, second = NEW, 0.0
    for number, (event_type, gap) in enumerate(zip(types, gaps, strict=False), first_number):
        second += gap
        data = {"deliverables": [item("a"), item("b")]} if event_type == "deliverable.ready" else {}
        event = arrived(event_type, number, happened=second, received=second + delay, data=data)
        known = advance(known, [event], event.received_at, INTERVALS).production
        assert known.due_to_ask_at is None or known.due_to_ask_at >= event.received_at + INTERVALS.silence
    assert len(known.due_downloads.keys() - {MANIFEST}) == 2
    assert (known.due_to_ask_at is None) is published
