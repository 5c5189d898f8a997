"""Checks from outside what came of the flash sale: reads the output streams from NATS and the dead letters from the host.

Waits until everything that must be there is there, and then a little longer for what must not be. Prints one JSON object; ends
with 0 if the run is clean, with 1 if it is not.
"""

import argparse
import asyncio
import json
import shlex
import subprocess
import sys
import time

import nats
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
    """From the file, or from the command's output: one JSON object a line. A host that is down for now has none to show."""
    if args.dead:
        with open(args.dead, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]
    run = subprocess.run(shlex.split(args.dead_command), capture_output=True, text=True, check=False)
    if run.returncode != 0:
        print(run.stderr, file=sys.stderr)
        return []
    return [json.loads(line) for line in run.stdout.splitlines() if line.strip()]


async def read(stream: JetStreamContext, name: str, findings: Findings) -> None:
    """Shows the findings all that is on a stream, in its order."""
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
            findings.output(name, message.headers or {}, message.data)
        left -= len(batch)
    await source.unsubscribe()


async def check(args: argparse.Namespace) -> dict:
    truth = Truth(scenario(args.events, args.seed), args.initial_stock, args.payment_attempts)
    findings = Findings(truth)
    client = await nats.connect(args.url)
    stream = client.jetstream(timeout=30)
    letters = await settled(stream, truth, args)
    for name in STAGES:
        await read(stream, name, findings)
    for letter in letters:
        findings.dead(letter)
    await client.close()
    return findings.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="nats://127.0.0.1:4222")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--initial-stock", type=int, default=80, help="as in the config")
    parser.add_argument("--payment-attempts", type=int, default=5, help="as in the config")
    dead = parser.add_mutually_exclusive_group(required=True)
    dead.add_argument("--dead", help="file with the output of `tidegate dlq list --json`")
    dead.add_argument("--dead-command", help="command that prints it, asked again while waiting")
    parser.add_argument("--wait", type=float, default=60, help="seconds without any change after which it no longer waits")
    parser.add_argument("--linger", type=float, default=3, help="seconds to wait for what must not be")
    result = asyncio.run(check(parser.parse_args()))
    print(json.dumps(result))
    sys.exit(0 if result["clean"] else 1)


if __name__ == "__main__":
    main()
