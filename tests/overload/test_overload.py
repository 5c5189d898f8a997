"""The checker sees what is wrong, the bound grows with what it is made of, the client reads what the server says."""

import unittest
from dataclasses import replace

from bound import ID, MIB, bound
from check import Findings, findings
from events import Events, count_up
from host import Consumer
from trickle import percentile
from wire import Message, frame

EVENTS = Events(6, 2, count_up)


def output(key: str, number: int, count: int | None = None) -> Message:
    said = b"as it came" if count is None else f"Ok({count})".encode()
    return Message("out", {"ce-causationid": f"{key}-{number}"}, said)


def right() -> list[Message]:
    return [output(key, number, number) for number in (1, 2, 3) for key in ("k0", "k1")]


def found(outputs: list[Message], committed: int = 6) -> Findings:
    return findings(EVENTS.of_keys(), outputs, committed)


class Checker(unittest.TestCase):
    def test_a_right_run_is_clean(self) -> None:
        self.assertTrue(found(right()).is_clean())

    def test_keys_may_be_in_any_order_among_each_other(self) -> None:
        self.assertTrue(found(sorted(right(), key=lambda message: message.headers["ce-causationid"])).is_clean())

    def test_an_output_that_is_missing_is_lost(self) -> None:
        self.assertEqual(found(right()[:-1]), Findings(1, 0, 0))

    def test_an_output_that_comes_twice_is_seen(self) -> None:
        self.assertEqual(found([*right(), output("k1", 3, 3)]), Findings(0, 1, 0))

    def test_an_effect_that_came_twice_is_seen_by_the_count(self) -> None:
        outputs = right()
        outputs[-1] = output("k1", 3, 4)
        self.assertEqual(found(outputs), Findings(0, 1, 0))

    def test_an_event_that_took_effect_twice_is_seen_by_what_the_host_says(self) -> None:
        self.assertEqual(found([replace_count(message) for message in right()], 7), Findings(0, 1, 0))

    def test_an_output_of_no_event_is_no_event(self) -> None:
        self.assertEqual(found([*right()[:-1], output("k1", 4, 4)]), Findings(1, 1, 0))

    def test_an_output_that_overtakes_is_out_of_order(self) -> None:
        outputs = [replace_count(message) for message in right()]
        outputs[0], outputs[2] = outputs[2], outputs[0]
        self.assertEqual(found(outputs), Findings(0, 0, 1))


def replace_count(message: Message) -> Message:
    return message._replace(payload=b"as it came")


class Bound(unittest.TestCase):
    consumer = Consumer("a", concurrency=4, budget_events=100, budget_bytes=MIB, memory=2 * MIB, effect_bytes=1_000)

    def test_it_grows_with_each_part(self) -> None:
        least = bound([self.consumer], 0)
        for other in ({"concurrency": 5}, {"budget_events": 101}, {"budget_bytes": 2 * MIB}, {"memory": 3 * MIB}):
            self.assertGreater(bound([replace(self.consumer, **other)], 0), least, other)
        self.assertEqual(bound([self.consumer], 1_000), least + 1_000 * ID)

    def test_a_second_consumer_adds_what_it_holds_and_its_instances_but_no_second_store(self) -> None:
        one, two = bound([self.consumer], 0), bound([self.consumer, replace(self.consumer, name="b")], 0)
        self.assertTrue(one < two < 2 * one)


class Parts(unittest.TestCase):
    def test_events_are_dealt_out_by_turns(self) -> None:
        self.assertEqual(Events(5, 2, count_up).of_keys(), {"k0": 3, "k1": 2})
        ids = [headers["ce-id"] for _, headers, _ in Events(5, 2, count_up).messages("in")]
        self.assertEqual(ids, ["k0-1", "k1-1", "k0-2", "k1-2", "k0-3"])

    def test_a_message_goes_over_the_wire_with_the_sizes_of_its_parts(self) -> None:
        self.assertEqual(frame("s", {"a": "b"}, b"xy", "r"), b"HPUB s r 18 20\r\nNATS/1.0\r\na: b\r\n\r\nxy\r\n")

    def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(self) -> None:
        values = [number / 1_000 for number in range(1, 101)]
        self.assertEqual((percentile(values, 0.5), percentile(values, 0.99)), (50, 99))


if __name__ == "__main__":
    unittest.main()
