"""The events of the runs: how many there are of each key, and as messages in the order of publication."""

from dataclasses import dataclass
from typing import Callable, Iterator


@dataclass(frozen=True)
class Events:
    """`count` events, dealt out to `keys` keys by turns; `script` is what the plugin does for the one of this key and number."""

    count: int
    keys: int
    script: Callable[[str, int], str]
    kind: str = "state"
    prefix: str = "k"

    def of_keys(self) -> dict[str, int]:
        """How many there are of each key."""
        full, rest = divmod(self.count, self.keys)
        return {self.key(number): full + (number < rest) for number in range(min(self.keys, self.count))}

    def key(self, number: int) -> str:
        return f"{self.prefix}{number % self.keys}"

    def messages(self, subject: str) -> Iterator[tuple[str, dict[str, str], bytes]]:
        for number in range(self.count):
            yield self.message(subject, number)

    def message(self, subject: str, number: int) -> tuple[str, dict[str, str], bytes]:
        key, of_key = self.key(number), number // self.keys + 1
        headers = {
            "ce-specversion": "1.0",
            "ce-id": f"{key}-{of_key}",
            "ce-source": "/overload",
            "ce-type": self.kind,
            "ce-subject": key,
        }
        return subject, headers, self.script(key, of_key).encode()


def count_up(key: str, _: int) -> str:
    return f"add {key} 1"


def wait_50_ms(key: str, _: int) -> str:
    return f"wait 50\nadd {key} 1"


def emit_much(size: int) -> Callable[[str, int], str]:
    return lambda key, _: f"add {key} 1\nfill {size}"


def much(size: int) -> Callable[[str, int], str]:
    """Data of this size."""
    data = "x" * size
    return lambda key, number: data


def some_later(every: int, pause_ms: int) -> Callable[[str, int], str]:
    """The events of one key in so many fail at first, and wait for so long."""
    return lambda key, _: f"attempt {2 if int(key[1:]) % every == 0 else 1} {pause_ms}\nadd {key} 1"
