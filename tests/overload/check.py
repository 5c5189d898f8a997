"""What must have come of the events, from their ids alone, held against the outputs in their stream.

An event is `KEY-NUMBER`, numbered from 1 within its key. The plugin counts its key up in its state and emits the count: once for
each event and in order, the count is the event's number. So an event that took effect twice is seen whoever drops its second output.
"""

from dataclasses import dataclass
from typing import Iterable

from wire import Message


@dataclass(frozen=True)
class Findings:
    """All must be 0."""

    lost: int
    twice: int
    out_of_order: int

    def is_clean(self) -> bool:
        return self == Findings(0, 0, 0)


def findings(events: dict[str, int], outputs: Iterable[Message], committed: int) -> Findings:
    """`events`: how many there are of each key. `committed`: how many took effect, as the host says."""
    latest: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    repeated = overtaken = miscounted = 0
    for output in outputs:
        key, number = identity(output)
        if (key, number) in seen:
            repeated += 1
            continue
        seen.add((key, number))
        if number < latest.get(key, 0):
            overtaken += 1
        latest[key] = max(number, latest.get(key, 0))
        if count(output) not in (None, number):
            miscounted += 1
    wanted = sum(events.values())
    there = sum(1 for key, number in seen if 1 <= number <= events.get(key, 0))
    # What no event is the cause of has come of nothing: as bad as something that came twice.
    invented = len(seen) - there
    return Findings(wanted - there, max(repeated + invented + miscounted, committed - wanted), overtaken)


def identity(output: Message) -> tuple[str, int]:
    """Of which event it is."""
    key, number = output.headers["ce-causationid"].rsplit("-", 1)
    return key, int(number)


def count(output: Message) -> int | None:
    """What the plugin counted; none in an output that only gives the event back."""
    said = output.payload[:32].split(b"\n")[0]
    return int(said[3:-1]) if said.startswith(b"Ok(") else None
