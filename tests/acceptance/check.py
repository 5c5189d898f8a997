"""Checks from outside what came of the flash sale: reads the output streams from NATS and the dead letters from the host.

Waits until everything that must be there is there, and then a little longer for what must not be. Prints one JSON object; ends
with 0 if the run is clean, with 1 if it is not.
"""

import argparse
import asyncio
import json
import sys
import time
import urllib.request
from typing import AsyncIterator

import nats
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingNew
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from model import STAGES, Findings, Truth
from scenario import scenario


async def settled(stream: JetStreamContext, truth: Truth, args: argparse.Namespace) -> list[dict]:
    """Waits for the expected number of outputs and dead letters, or until nothing has changed for `--wait` seconds."""
    latest, since = None, time.monotonic()
    while True:
        letters = dead_letters(args)
        counts = [await count(stream, name) for name in STAGES] + [len(letters)]
        expected = [truth.count(name) for name in STAGES] + [len(truth.dead)]
        if latest != counts:
            latest, since = counts, time.monotonic()
        if all(found >= wanted for found, wanted in zip(counts, expected)) or time.monotonic() - since > args.wait:
            break
        await asyncio.sleep(1)
    await asyncio.sleep(args.linger)
    return dead_letters(args)


async def count(stream: JetStreamContext, name: str) -> int:
    try:
        return (await stream.stream_info(name)).state.messages
    except NotFoundError:
        return 0


def dead_letters(args: argparse.Namespace) -> list[dict]:
    """From the host's API, a page at a time. A host that is down for now has none to show."""
    letters: list[dict] = []
    after = ""
    try:
        while True:
            page = get(args, f"dead-letters?limit=1000{after}")
            letters += page["dead_letters"]
            if "next" not in page:
                return letters
            after = f"&after={page['next']}"
    except OSError as error:
        print(f"the host does not answer: {error}", file=sys.stderr)
        return []


def get(args: argparse.Namespace, path: str) -> dict:
    with urllib.request.urlopen(f"{args.admin}/api/v1/{path}", timeout=30) as answer:
        return json.load(answer)


async def read(stream: JetStreamContext, name: str) -> AsyncIterator[Msg]:
    """All that is on a stream, in its order."""
    left = await count(stream, name)
    if left == 0:
        return
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=60)
    source = await stream.pull_subscribe(f"{name}.>", stream=name, config=config)
    while left > 0:
        try:
            batch = await source.fetch(min(left, 1_000), timeout=10)
        except NothingNew:
            sys.exit(f"stream {name} ended with {left} messages to come")
        for message in batch:
            yield message
        left -= len(batch)
    await source.unsubscribe()


class Times:
    """How long an order took to its first output, by the server's clock: both streams are on it."""

    def __init__(self) -> None:
        self._ordered: dict[str, float] = {}
        self._latencies: list[float] = []
        self._last = 0.0

    def order(self, message: Msg) -> None:
        order = (message.headers or {}).get("ce-id")
        if order is not None:
            self._ordered.setdefault(order, message.metadata.timestamp.timestamp())

    def output(self, message: Msg) -> None:
        at = message.metadata.timestamp.timestamp()
        self._last = max(self._last, at)
        ordered = self._ordered.get((message.headers or {}).get("ce-causationid", ""))
        if ordered is not None:
            self._latencies.append((at - ordered) * 1_000)

    def result(self) -> dict[str, float]:
        if not self._latencies:
            return {}
        latencies = sorted(self._latencies)
        p50, p99 = (latencies[int(len(latencies) * share)] for share in (0.5, 0.99))
        seconds = self._last - min(self._ordered.values())
        return {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "seconds": round(seconds, 2)}


async def check(args: argparse.Namespace) -> dict:
    truth = Truth(scenario(args.events, args.seed), args.initial_stock, args.payment_attempts)
    findings = Findings(truth)
    client = await nats.connect(args.url)
    stream = client.jetstream(timeout=30)
    letters = await settled(stream, truth, args)
    times = Times()
    async for message in read(stream, "orders"):
        times.order(message)
    for name in STAGES:
        async for message in read(stream, name):
            findings.output(name, message.headers or {}, message.data)
            times.output(message)
    for letter in letters:
        # Only an event that could not be decoded has no id to be known by: its body tells which it was.
        findings.dead(letter if letter["event_id"] else get(args, f"dead-letters/{letter['id']}"))
    await client.close()
    return findings.result() | times.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="nats://127.0.0.1:4222")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--initial-stock", type=int, default=80, help="as in the config")
    parser.add_argument("--payment-attempts", type=int, default=5, help="as in the config")
    parser.add_argument("--admin", default="http://127.0.0.1:7070", help="the host's admin API, for its dead letters")
    parser.add_argument("--wait", type=float, default=60, help="seconds without any change after which it no longer waits")
    parser.add_argument("--linger", type=float, default=3, help="seconds to wait for what must not be")
    result = asyncio.run(check(parser.parse_args()))
    print(json.dumps(result))
    sys.exit(0 if result["clean"] else 1)


if __name__ == "__main__":
    main()
