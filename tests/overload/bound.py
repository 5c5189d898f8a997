"""How much memory a host may have resident, worked out from its config: the sum in docs/reliability-overload.md."""

from typing import Iterable

from host import Consumer

MIB = 1 << 20

# The process, the engine with its address space, threads, the code of one small plugin; metrics, connections.
HOST = 64 * MIB
# The engine's cache of blocks.
STORE_CACHE = 64 * MIB
# Rows of one table in memory, and of the records: written, and at most four lists of them on their way to the disk.
STORE_LISTS = 5
STORE_TABLE = 32 * MIB
STORE_RECORDS = 4 * MIB
# Tables that a host writes whose events succeed: outbox and state. One whose events fail writes those of attempts and the parking, too.
TABLES = 2
TABLES_FAILING = 4
# A batch of commits, twice: as it is gathered and as it is written.
STORE_BATCH = 2 * 8 * MIB
# An event in hand beside its bytes: attributes, lane, record, delivery, and its outputs on their way.
EVENT = 4 << 10
# The wasm stack of an instance.
STACK = 1 * MIB
# Of each remembered id: filters in memory and in the files.
ID = 8
INSTANCES_MAX = 1_000


def bound(consumers: Iterable[Consumer], ids: int, fails: bool = False) -> int:
    """In bytes."""
    consumers = list(consumers)
    # The engine's memory for instances is as large as the largest may be, and taken where it was used.
    instances = min(sum(consumer.concurrency for consumer in consumers), INSTANCES_MAX)
    plugins = instances * (max(consumer.memory for consumer in consumers) + STACK)
    tables = TABLES_FAILING if fails else TABLES
    store = STORE_CACHE + STORE_LISTS * (tables * STORE_TABLE + STORE_RECORDS) + STORE_BATCH + ids * ID
    return HOST + plugins + store + sum(held(consumer) for consumer in consumers)


def held(consumer: Consumer) -> int:
    """What one consumer holds: events and outputs, each up to the budget; and what runs may emit beyond it."""
    beyond = consumer.concurrency * consumer.effect_bytes
    return consumer.budget_events * EVENT + 2 * consumer.budget_bytes + beyond
