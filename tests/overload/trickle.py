"""Three consumers with a trickle of events each: how long one takes to its receiver, alone and beside a burst."""

import math
import multiprocessing
import time
from dataclasses import dataclass, field
from typing import Callable

from events import Events, count_up
from wire import Connection, frame

NAMES = ("trickle-1", "trickle-2", "trickle-3")
# Events per second of each.
RATE = 50
KEYS = 10
# What is left behind for what is still on its way at the end.
LINGER_S = 3.0


@dataclass
class Trickle:
    """Publishes when an event is due, whatever became of the earlier ones, and takes the time from then to its output."""

    connection: Connection
    published: int = 0
    # By phase, in seconds.
    waited: dict[str, list[float]] = field(default_factory=dict)
    late: dict[str, list[float]] = field(default_factory=dict)
    due: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, name in enumerate(NAMES):
            self.connection.subscribe(f"out-{name}", 2 + number)

    def run(self, phase: str, is_over: Callable[[], bool]) -> None:
        """Lets events trickle until it is over."""
        self.waited[phase], self.late[phase] = [], []
        start, number = time.monotonic(), 0
        while not is_over():
            due = start + number / RATE
            self._receive_until(due)
            for name in NAMES:
                event = events(self.published + 1).message(f"in-{name}", self.published)
                self.due[name, event[1]["ce-id"]] = due, phase
                self.connection.send(frame(*event))
            self.late[phase].append(time.monotonic() - due)
            self.published, number = self.published + 1, number + 1

    def linger(self) -> None:
        """Receives what is still on its way."""
        deadline = time.monotonic() + LINGER_S
        while self.due and time.monotonic() < deadline:
            self._receive_until(time.monotonic() + 0.1)

    def _receive_until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0:
            for message in self.connection.read(left):
                now = time.monotonic()
                name = message.subject.removeprefix("out-")
                if found := self.due.pop((name, message.headers["ce-causationid"]), None):
                    self.waited[found[1]].append(now - found[0])


def events(count: int) -> Events:
    """What trickled by then."""
    return Events(count, KEYS, count_up)


def beside(work: Callable[[], None]) -> Callable[[], bool]:
    """Does something in a process of its own; tells when it has ended.

    What is given raises if it failed."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()

    def is_over() -> bool:
        if process.exitcode is None:
            return False
        if process.exitcode:
            raise RuntimeError("the burst failed")
        return True

    return is_over


def for_seconds(seconds: float) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() >= deadline


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(values)
    return 1_000 * ordered[math.ceil(len(ordered) * share) - 1]
