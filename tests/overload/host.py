"""The host as a process: its config, its start, its end, what it counts, and what it weighs."""

import json
import pathlib
import subprocess
import time
import urllib.request
from dataclasses import dataclass

READY_S = 60
STOP_S = 90


@dataclass(frozen=True)
class Consumer:
    """One consumer, which reads the stream `in-NAME` and writes `out-NAME`."""

    name: str
    concurrency: int
    budget_events: int
    budget_bytes: int
    memory: int
    effect_bytes: int = 1 << 20
    park_after: str = "5s"

    def config(self, plugin: pathlib.Path) -> str:
        return f"""
[stream.in-{self.name}]
broker = "main"
stream = "in-{self.name}"
subjects = ["in-{self.name}"]

[stream.out-{self.name}]
broker = "main"
subject = "out-{self.name}"

[consumer.{self.name}]
plugin = "{plugin}"
reads = "in-{self.name}"
writes = "out-{self.name}"
concurrency = {self.concurrency}
budget = {{ events = {self.budget_events}, bytes = {self.budget_bytes} }}
retry = {{ backoff = "100ms..20s", park_after = "{self.park_after}" }}
limits = {{ memory = {self.memory}, time = "30s", emit_bytes = {self.effect_bytes}, effect_bytes = {self.effect_bytes} }}
grants = {{ state = true, config = {{}} }}
"""


class Host:
    """A running host, in a folder of its own."""

    def __init__(self, binary: str, plugin: pathlib.Path, url: str, folder: pathlib.Path, consumers: list[Consumer]):
        text = f'[ledger]\nurl = "embedded:./data"\n[broker.main]\nurl = "{url}"\n[admin]\nlisten = "127.0.0.1:0"\n'
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "tidegate.toml").write_text(text + "".join(consumer.config(plugin) for consumer in consumers))
        self.log = folder / "log"
        with open(self.log, "w") as log:
            command = [binary, "run", "--json"]
            self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        try:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"the host does not start:\n{self.log.read_text()}")
            self.admin = f"http://{json.loads(line)['admin']}"
            self._until_ready()
        except BaseException:
            self.kill()
            raise

    def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.admin}/readyz", timeout=10):
                    return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError(f"the host is not ready:\n{self.log.read_text()}") from None
                time.sleep(0.02)

    def resident_peak(self) -> int:
        """The most bytes of memory that it ever had resident."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    def counts(self, consumer: str) -> dict[str, int]:
        return counts(self.admin, consumer)

    def until_confirmed(self, stream: str, patience_s: float) -> None:
        """Waits until the broker has all that was committed for a stream."""
        deadline = time.monotonic() + patience_s
        while waiting := outbox(self.admin, stream):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{stream}: {waiting} outputs are not confirmed")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops it as a service manager does.

        Raises if it does not end well."""
        self.process.terminate()
        if status := self.process.wait(STOP_S):
            raise RuntimeError(f"the host ended with {status}:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def counts(admin: str, consumer: str) -> dict[str, int]:
    """What has become of a consumer's deliveries."""
    with urllib.request.urlopen(f"{admin}/api/v1/consumers", timeout=60) as response:
        [found] = [each for each in json.load(response) if each["consumer"] == consumer]
        return found["counts"]


def outbox(admin: str, stream: str) -> int:
    """Outputs that are committed and not confirmed."""
    with urllib.request.urlopen(f"{admin}/api/v1/streams", timeout=60) as response:
        [found] = [each for each in json.load(response) if each["stream"] == stream]
        return found["outbox"]


def until_committed(admin: str, consumer: str, count: int, patience_s: float) -> float:
    """Waits until so many events took effect; how long it took. Gives up when nothing more has for `patience_s`."""
    began = moved = time.monotonic()
    latest = 0
    while True:
        found = counts(admin, consumer)["committed"]
        now = time.monotonic()
        if found >= count:
            return now - began
        if found != latest:
            latest, moved = found, now
        elif now - moved > patience_s:
            raise RuntimeError(f"{consumer}: nothing moves any more, {found} of {count} took effect: {counts(admin, consumer)}")
        time.sleep(0.05)
