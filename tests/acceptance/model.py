"""What must come of the sale, computed from the published messages alone, and the comparison with what was found.

It shares no code with the host, its plugins or the generator: the shop is modelled here once more.
"""

import base64
import json
from collections import Counter
from typing import Any, Iterable

from scenario import Message

STAGES = {
    "stock": ("com.example.stock.reserved", "com.example.stock.rejected"),
    "payments": ("com.example.payment.processed",),
    "shipments": ("com.example.shipment.dispatched",),
    "notifications": ("com.example.notification.sent",),
}
NOTES_MAX = 20


class Truth:
    """Effects that must be there: outputs by (stream, type, order), dead letters by (consumer, order, reason)."""

    def __init__(self, messages: Iterable[Message], initial_stock: int, payment_attempts: int) -> None:
        self.events = 0
        self.outputs: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.dead: set[tuple[str, str, str]] = set()
        self.orders_of_payloads: dict[bytes, str] = {}
        self._stock: dict[str, int] = {}
        self._known: dict[str, bytes] = {}
        self._initial_stock = initial_stock
        self._payment_attempts = payment_attempts
        for message in messages:
            self._publish(message)

    def _publish(self, message: Message) -> None:
        self.events += 1
        event = message.headers.get("ce-id")
        if event is None:
            order = order_of(message.payload) or message.payload.rsplit(b" ", 1)[-1].decode()
            self.orders_of_payloads[message.payload] = order
            self._bury(order, "undecodable", "inventory", "analytics")
        elif event not in self._known:
            self._known[event] = message.payload
            self._order(event, message.payload)
        elif self._known[event] != message.payload:
            self._bury(event, "id-conflict", "inventory", "analytics")

    def _order(self, event: str, payload: bytes) -> None:
        try:
            order = json.loads(payload)
        except ValueError:
            self.orders_of_payloads[payload] = event
            return self._bury(event, "permanent", "inventory")
        if order["quantity"] == 0:
            return self._bury(event, "permanent", "inventory")
        if order.get("coupon") == "":
            return self._bury(event, "trap", "inventory")
        self._sell(event, order)

    def _sell(self, event: str, order: dict) -> None:
        left = self._stock.get(order["sku"], self._initial_stock)
        core = {name: order[name] for name in ("order", "customer", "sku", "seq")}
        if order["quantity"] > left:
            self._output("stock", 1, core | {"quantity": order["quantity"], "left": left})
            return
        left -= order["quantity"]
        self._stock[order["sku"]] = left
        percent = {"V": 20, "S": 10}.get(order.get("coupon", " ")[0], 0)
        full = order["price_cents"] * order["quantity"]
        amount = full - full * percent // 100
        self._output("stock", 0, core | {"quantity": order["quantity"], "left": left, "amount_cents": amount})
        if order["card"] == "tok_stolen":
            return self._bury(event, "permanent", "payment")
        if int(order["card"].removeprefix("tok_flaky_") if "flaky" in order["card"] else 0) >= self._payment_attempts:
            return self._bury(event, "attempts-exhausted", "payment")
        self._output("payments", 0, core | {"amount_cents": amount})
        self._output("shipments", 0, core | {"parcel": f"p-{event}"})
        self._output("notifications", 0, core)

    def _output(self, stream: str, kind: int, says: dict) -> None:
        self.outputs[stream, STAGES[stream][kind], says["order"]] = says

    def _bury(self, order: str, reason: str, *consumers: str) -> None:
        self.dead.update((consumer, order, reason) for consumer in consumers)

    def count(self, stream: str) -> int:
        """How many outputs a stream must hold."""
        return sum(1 for place, _, _ in self.outputs if place == stream)


class Findings:
    """Compares what was found with the truth. Show it outputs in the order of their streams, then dead letters, then ask `result`."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.lost = self.applied_twice = self.out_of_order = self.unexpected = self.outputs = 0
        self.notes: list[str] = []
        self.reasons: Counter[str] = Counter()
        self._seen: set[tuple[str, str, str]] = set()
        self._buried: set[tuple[str, str, str]] = set()
        self._ids: dict[str, str] = {}
        self._latest: dict[tuple[str, str], int] = {}

    def output(self, stream: str, headers: dict[str, str], payload: bytes) -> None:
        """The next event on an output stream."""
        self.outputs += 1
        order = order_of(payload)
        key = (stream, headers.get("ce-type", ""), order or "")
        expected = self.truth.outputs.get(key)
        identity = headers.get("ce-id", "")
        if expected is None:
            self.unexpected += 1
            return self._note(f"{key} must not be: {payload[:200]!r}")
        said = json.loads(payload)
        if any(said.get(name) != value for name, value in expected.items()):
            self.unexpected += 1
            self._note(f"{key} says {said}, the model {expected}")
        if key in self._seen or identity in self._ids:
            self.applied_twice += 1
            return self._note(f"{key} comes twice (id {identity})")
        self._seen.add(key)
        self._ids[identity] = key[2]
        self._follow(stream, expected)

    def _follow(self, stream: str, expected: dict) -> None:
        lane = (stream, expected["sku"])
        latest = self._latest.get(lane, 0)
        if expected["seq"] < latest:
            self.out_of_order += 1
            self._note(f"{stream}: number {expected['seq']} of {expected['sku']} comes after {latest}")
        self._latest[lane] = max(latest, expected["seq"])

    def dead(self, letter: dict) -> None:
        """One dead letter, as `tidegate dlq list --json` prints it."""
        self.reasons[letter["reason"]] += 1
        key = (letter["consumer"], self._order_of(letter), letter["reason"])
        if key not in self.truth.dead:
            self.unexpected += 1
            self._note(f"dead letter {key} must not be")
        elif key in self._buried:
            self.applied_twice += 1
            self._note(f"dead letter {key} is there twice")
        self._buried.add(key)

    def _order_of(self, letter: dict) -> str:
        """By the body of the message if the list has it; else by the event's id, which may be one that the host gave."""
        payload = payload_of(letter)
        if payload is not None:
            return order_of(payload) or self.truth.orders_of_payloads.get(payload, repr(payload))
        identity = event_id_of(letter)
        return self._ids.get(identity, identity)

    def result(self) -> dict[str, Any]:
        """The counts, one object."""
        for key in sorted(self.truth.outputs.keys() - self._seen) + sorted(self.truth.dead - self._buried):
            self.lost += 1
            self._note(f"{key} is missing")
        counts = {name: getattr(self, name) for name in ("lost", "applied_twice", "out_of_order", "unexpected")}
        return {
            "events": self.truth.events,
            "outputs": self.outputs,
            "dead": sum(self.reasons.values()),
            **counts,
            "reasons": dict(sorted(self.reasons.items())),
            "clean": not any(counts.values()),
            "notes": self.notes,
        }

    def _note(self, note: str) -> None:
        if len(self.notes) < NOTES_MAX:
            self.notes.append(note)


def order_of(payload: bytes) -> str | None:
    """The order that a body speaks of, if it is JSON and speaks of one."""
    try:
        body = json.loads(payload)
    except ValueError:
        return None
    return body.get("order") if isinstance(body, dict) else None


def payload_of(letter: dict) -> bytes | None:
    """The body in a dead letter: text or numbers under `data` or `payload`, base64 under the same with `_base64`."""
    for place in (letter, letter.get("message") or {}):
        for name in ("data", "payload"):
            match place.get(name), place.get(f"{name}_base64"):
                case str(text), _:
                    return text.encode()
                case list(numbers), _:
                    return bytes(numbers)
                case dict(json_data), _:
                    return json.dumps(json_data).encode()
                case _, str(text):
                    return base64.b64decode(text)
    return None


def event_id_of(letter: dict) -> str:
    """The id of the event in a dead letter: `event` as `[source, id]` or as an object, or `event_id`."""
    match letter.get("event"):
        case [_, str(identity)] | {"id": str(identity)} | str(identity):
            return identity
    return str(letter.get("event_id", ""))
