"""Publishes the flash sale on JetStream. Prints one JSON object when everything is acknowledged."""

import argparse
import asyncio
import json
import time

import nats
from nats.js.errors import NotFoundError

from scenario import scenario

# Publishes under way at once. One connection keeps their order.
WINDOW = 256


async def publish(args: argparse.Namespace) -> dict:
    """Publishes everything in order, at `--rate` if it is given. No `Nats-Msg-Id`: the repetitions are meant to arrive."""
    client = await nats.connect(args.url, max_reconnect_attempts=-1)
    stream = client.jetstream(publish_async_max_pending=WINDOW)
    try:
        await stream.stream_info("orders")
    except NotFoundError:
        await stream.add_stream(name="orders", subjects=["orders.>"])
    begin = time.monotonic()
    acks = []
    for number, message in enumerate(scenario(args.events, args.seed)):
        acks.append(await stream.publish_async("orders.placed", message.payload, headers=message.headers or None))
        if len(acks) == WINDOW:
            await asyncio.gather(*acks)
            acks.clear()
        if args.rate and number % 64 == 0:
            await asyncio.sleep(max(0.0, begin + number / args.rate - time.monotonic()))
    await asyncio.gather(*acks)
    await client.close()
    return {"published": args.events, "seconds": round(time.monotonic() - begin, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="nats://127.0.0.1:4222")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, help="events per second; default as fast as they are acknowledged")
    print(json.dumps(asyncio.run(publish(parser.parse_args()))))


if __name__ == "__main__":
    main()
