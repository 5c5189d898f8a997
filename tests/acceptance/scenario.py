"""The flash sale as an outsider publishes it: its own generator, written apart from the host's.

The same number of events and seed give the same messages. One in ten is a repetition of an earlier message, one in a hundred is
poison of some kind, articles are interleaved, and the orders of an article are numbered in the order of publication.
"""

import json
import random
from collections import deque
from typing import Iterator, NamedTuple

RECENT = 2_000
POISON = (
    "no-event",
    "no-id",
    "broken-json",
    "nothing",
    "empty-coupon",
    "id-conflict",
    "stolen-card",
    "dead-bank",
)


class Message(NamedTuple):
    """One message on the stream of orders."""

    headers: dict[str, str]
    payload: bytes


def encode(order: dict, kind: str) -> Message:
    """The order as a CloudEvent in binary mode, or as what its kind of poison makes of it."""
    payload = json.dumps(order, separators=(",", ":")).encode()
    headers = {
        "ce-specversion": "1.0",
        "ce-id": order["order"],
        "ce-source": "/shop",
        "ce-type": "com.example.order.placed",
        "ce-subject": order["order"],
        "ce-datacontenttype": "application/json",
        "ce-partitionkey": order["sku"],
    }
    match kind:
        case "no-event":
            return Message({}, b"\xff\xfe no event but " + order["order"].encode())
        case "no-id":
            del headers["ce-id"]
        case "broken-json":
            payload = payload[: len(payload) // 2]
    return Message(headers, payload)


def scenario(events: int, seed: int) -> Iterator[Message]:
    """The messages, in order."""
    rng = random.Random(seed)
    seqs = [0] * min(max(events // 50, 4), 2_000)
    recent: deque[tuple[dict, str]] = deque(maxlen=RECENT)
    poisoned = 0

    def draft(number: int) -> dict:
        # The lower of two draws: the first articles are the hot ones.
        sku = min(rng.randrange(len(seqs)), rng.randrange(len(seqs)))
        seqs[sku] += 1
        order = {
            "order": f"o-{number:07}",
            "customer": f"c-{rng.randrange(events // 10 + 1):05}",
            "sku": f"sku-{sku:04}",
            "seq": seqs[sku],
            "quantity": rng.randint(1, 3),
            "price_cents": 500 + 250 * (sku % 40),
            "card": "tok_visa",
        }
        coupon = rng.choice((None, None, None, "VIP", "SALE"))
        return order | ({"coupon": coupon} if coupon else {})

    for number in range(events):
        draw = rng.randrange(1_000)
        if draw < 100 and recent:
            yield encode(*rng.choice(recent))
            continue
        kind = "order"
        if draw >= 990:
            kind = POISON[poisoned % len(POISON)]
            poisoned += 1
        if kind == "id-conflict":
            # A good order becomes the victim once at most.
            victims = [index for index, (_, was) in enumerate(recent) if was == "order"]
            if victims:
                index = rng.choice(victims)
                order, _ = recent[index]
                del recent[index]
                yield encode(order | {"quantity": order["quantity"] + 1}, kind)
                continue
            kind = "order"
        order = draft(number)
        match kind:
            case "order" if 960 <= draw < 990:
                order["card"] = f"tok_flaky_{rng.randint(1, 2)}"
            case "nothing":
                order["quantity"] = 0
            case "empty-coupon":
                order["coupon"] = ""
            case "stolen-card":
                order["card"] = "tok_stolen"
            case "dead-bank":
                order["card"] = "tok_flaky_99"
        if kind not in ("no-event", "no-id"):
            recent.append((order, kind))
        yield encode(order, kind)
