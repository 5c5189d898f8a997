#!/usr/bin/env python3
"""One key that fails for ever, with events behind it, beside as many of other keys: do the others get through, and as soon?

Publishes on the embedded broker for the flash sale's payment plugin, once without the bad key and once with it, events of both by turns,
and waits until the others are through. Prints one JSON object; fails if one of them is not, or if one of the bad key got past its first.

usage: bad_key.py --tidegate FILE [--events N]
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "examples/flash-sale/plugins"
KEYS = 500
WAIT_S = 300

CONFIG = """
[ledger]
url = "embedded:./data"

[broker.main]
url = "embedded:./data"

[stream.stock]
broker = "main"

[stream.payments]
broker = "main"

[consumer.payment]
plugin = "{plugin}"
reads = "stock"
writes = "payments"
key = "partitionkey"
retry = {{ attempts = 1000, backoff = "100ms..10s" }}

[admin]
listen = "127.0.0.1:{port}"
"""


def event(number, sku, card):
    data = {"order": f"o-{number}", "customer": "c", "sku": sku, "seq": number, "amount_cents": 1, "card": card}
    return {
        "specversion": "1.0",
        "id": f"{sku}-{number}",
        "source": "/bad-key",
        "type": "com.example.stock.reserved",
        "partitionkey": sku,
        "datacontenttype": "application/json",
        "data": data,
    }


def events(count, with_bad):
    for number in range(count):
        if with_bad:
            yield event(number, "bad", "tok_flaky_99999")
        yield event(number, f"sku-{number % KEYS}", "tok_visa")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def counts(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/consumers", timeout=10) as response:
        [consumer] = json.load(response)
        return consumer["counts"] | {"parked_now": consumer["parked"]}


def resident_mb(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def run(tidegate, count, with_bad):
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        plugin = PLUGINS / "target/wasm32-wasip2/release/payment.wasm"
        (pathlib.Path(folder) / "tidegate.toml").write_text(CONFIG.format(plugin=plugin, port=port))
        lines = "".join(json.dumps(event) + "\n" for event in events(count, with_bad))
        (pathlib.Path(folder) / "events.jsonl").write_text(lines)
        log = open(pathlib.Path(folder) / "log", "w")
        host = subprocess.Popen([tidegate, "run"], cwd=folder, stdout=log, stderr=log)
        try:
            began = time.monotonic()
            subprocess.run([tidegate, "publish", "stock", "events.jsonl"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            published = time.monotonic()
            while counts(port)["committed"] < count:
                if time.monotonic() - began > WAIT_S:
                    sys.exit(f"after {WAIT_S} s: {counts(port)}")
                time.sleep(0.05)
            seconds = time.monotonic() - began
            if with_bad:
                while counts(port)["parked_now"] < count and time.monotonic() - began < WAIT_S:
                    time.sleep(0.05)
            found = counts(port) | {"resident_mb": resident_mb(host.pid)}
            return {"seconds": round(seconds, 2), "publishing_seconds": round(published - began, 2)} | found
        finally:
            host.terminate()
            host.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tidegate", required=True)
    parser.add_argument("--events", type=int, default=50_000)
    arguments = parser.parse_args()
    build = ["cargo", "build", "--quiet", "--release", "--target", "wasm32-wasip2"]
    # Where they are looked for, whatever the caller's own builds do.
    environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
    subprocess.run(build, cwd=PLUGINS, env=environment, check=True)
    tidegate = str(pathlib.Path(arguments.tidegate).resolve())
    alone, beside = (run(tidegate, arguments.events, with_bad) for with_bad in (False, True))
    print(json.dumps({"events": arguments.events, "alone": alone, "beside": beside}))
    # Of the bad key nothing took effect, nothing is a dead letter, and all of it waits.
    is_well = beside["committed"] == arguments.events and beside["dead"] == 0 and beside["parked_now"] == arguments.events
    sys.exit(0 if is_well else "the bad key's events are not where they must be")


if __name__ == "__main__":
    main()
