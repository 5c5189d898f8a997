"""A NATS client of a few lines: fast enough to publish as fast as the server takes it, and none of the host's code."""

import json
import select
import socket
import time
from collections import deque
from typing import Iterable, Iterator, NamedTuple

# Publishes under way at once: what the server has not acknowledged.
WINDOW = 4_096
WINDOW_BYTES = 32 << 20
# What goes to the socket at once, in messages and in bytes.
CHUNK = 256
CHUNK_BYTES = 4 << 20
# What is read at once.
READ = 1 << 20
# How long the server may be silent when it must say something.
PATIENCE_S = 120


class Message(NamedTuple):
    """A message that came."""

    subject: str
    headers: dict[str, str]
    payload: bytes


class Refused(Exception):
    """The server does not do what it was asked for."""


def frame(subject: str, headers: dict[str, str], payload: bytes, reply: str = "") -> bytes:
    """A message as it goes over the wire."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"NATS/1.0\r\n{lines}\r\n".encode()
    to = f"{subject} {reply}" if reply else subject
    return b"".join((f"HPUB {to} {len(head)} {len(head) + len(payload)}\r\n".encode(), head, payload, b"\r\n"))


class Connection:
    """One connection. Not to be shared by threads."""

    def __init__(self, url: str):
        host, port = url.split("://")[1].split(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.at = 0
        self.arrived: deque[Message] = deque()
        self.inbox = f"_INBOX.{id(self)}.{time.monotonic_ns()}"
        self.numbers = 0
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "lang": "test", "version": "0"}
        self.send(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
        self.subscribe(f"{self.inbox}.*", 1)

    def close(self) -> None:
        self.socket.close()

    def send(self, frames: bytes) -> None:
        self.socket.sendall(frames)

    def subscribe(self, subject: str, number: int) -> None:
        self.send(f"SUB {subject} {number}\r\n".encode())

    def read(self, timeout: float) -> list[Message]:
        """What has come, or comes first within so many seconds."""
        deadline = time.monotonic() + timeout
        while not self.arrived:
            left = max(deadline - time.monotonic(), 0)
            if not select.select([self.socket], [], [], left)[0]:
                break
            read = self.socket.recv(READ)
            if not read:
                raise Refused("the server has closed the connection")
            self.buffer += read
            self._parse()
        arrived = list(self.arrived)
        self.arrived.clear()
        return arrived

    def request(self, subject: str, body: dict) -> dict:
        """Asks the JetStream API."""
        self.numbers += 1
        inbox = f"{self.inbox}.{self.numbers}"
        payload = json.dumps(body).encode()
        self.send(f"PUB {subject} {inbox} {len(payload)}\r\n".encode() + payload + b"\r\n")
        for message in self.until_silent():
            if message.subject == inbox:
                answer = json.loads(message.payload or b"{}")
                if "error" in answer or message.headers.get("status"):
                    raise Refused(f"{subject}: {answer.get('error') or message.headers}")
                return answer
        raise Refused(f"{subject}: no answer")

    def until_silent(self) -> Iterator[Message]:
        """What comes, until nothing has come for a long time."""
        while arrived := self.read(PATIENCE_S):
            yield from arrived

    def publish(self, messages: Iterable[tuple[str, dict[str, str], bytes]]) -> int:
        """Publishes in order, as fast as the server acknowledges; how many."""
        reply = f"{self.inbox}.ack"
        sent = 0
        chunk: list[bytes] = []
        # Sizes of what is not acknowledged.
        open_sizes: deque[int] = deque()
        for message in messages:
            chunk.append(frame(*message, reply))
            open_sizes.append(len(chunk[-1]))
            if len(chunk) == CHUNK or len(chunk) * len(chunk[-1]) >= CHUNK_BYTES:
                sent += self._send_chunk(chunk)
                self._acknowledge(open_sizes, 0)
                while len(open_sizes) > WINDOW or sum(open_sizes) > WINDOW_BYTES:
                    self._acknowledge(open_sizes, PATIENCE_S)
        sent += self._send_chunk(chunk)
        while open_sizes:
            self._acknowledge(open_sizes, PATIENCE_S)
        return sent

    def _send_chunk(self, chunk: list[bytes]) -> int:
        count = len(chunk)
        self.send(b"".join(chunk))
        chunk.clear()
        return count

    def _acknowledge(self, open_sizes: deque[int], timeout: float) -> None:
        arrived = self.read(timeout)
        if timeout and not arrived:
            raise Refused("publishing: no acknowledgement")
        for message in arrived:
            if b'"error"' in message.payload or not message.payload:
                raise Refused(f"publishing: {message}")
            open_sizes.popleft()

    def stored(self, stream: str, batch: int) -> Iterator[Message]:
        """All messages of a stream, in order."""
        total = self.request(f"$JS.API.STREAM.INFO.{stream}", {})["state"]["messages"]
        config = {"ack_policy": "none", "deliver_policy": "all", "inactive_threshold": 600_000_000_000}
        made = self.request(f"$JS.API.CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        inbox = f"{self.inbox}.{stream}"
        seen = 0
        while seen < total:
            wanted = min(batch, total - seen)
            payload = json.dumps({"batch": wanted}).encode()
            next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{made['name']}"
            self.send(f"PUB {next_subject} {inbox} {len(payload)}\r\n".encode() + payload + b"\r\n")
            for message in self.until_silent():
                if "status" in message.headers:
                    raise Refused(f"reading {stream}: {message.headers}")
                yield message
                seen, wanted = seen + 1, wanted - 1
                if wanted == 0:
                    break
            if wanted:
                raise Refused(f"reading {stream}: {seen} of {total} came")

    def _parse(self) -> None:
        buffer = self.buffer
        while (end := buffer.find(b"\r\n", self.at)) >= 0:
            line = bytes(buffer[self.at : end])
            words = line.split(b" ")
            after = end + 2
            match words[0]:
                case b"MSG" | b"HMSG":
                    size = int(words[-1])
                    if len(buffer) < after + size + 2:
                        break
                    head = int(words[-2]) if words[0] == b"HMSG" else 0
                    headers = _headers(bytes(buffer[after : after + head])) if head else {}
                    payload = bytes(buffer[after + head : after + size])
                    self.arrived.append(Message(words[1].decode(), headers, payload))
                    after += size + 2
                case b"PING":
                    self.send(b"PONG\r\n")
                case b"-ERR":
                    raise Refused(line.decode())
            self.at = after
        del buffer[: self.at]
        self.at = 0


def _headers(head: bytes) -> dict[str, str]:
    first, *lines = head.decode().rstrip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    if status := first.removeprefix("NATS/1.0").strip():
        headers["status"] = status
    return headers
