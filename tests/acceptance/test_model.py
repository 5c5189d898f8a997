"""The checker is checked: a right run is clean, each wrong one is caught. Run: python3 -m unittest, in this folder."""

import json
import unittest
from collections import Counter

from model import Findings, Truth
from scenario import scenario

EVENTS = 4_000


class Run:
    """A right run, made of the truth itself; the tests break it."""

    def __init__(self) -> None:
        self.truth = Truth(scenario(EVENTS, 5), 80, 5)
        self.outputs = [
            [stream, {"ce-type": kind, "ce-id": f"{stream}-{order}"}, json.dumps(says).encode()]
            for (stream, kind, order), says in self.truth.outputs.items()
        ]
        self.dead = [
            {"consumer": consumer, "reason": reason, "event": ["/shop", order]}
            for consumer, order, reason in sorted(self.truth.dead)
        ]

    def find(self, stream: str) -> int:
        return next(index for index, output in enumerate(self.outputs) if index > 900 and output[0] == stream)

    def counts(self) -> tuple[int, int, int, int]:
        findings = Findings(self.truth)
        for output in self.outputs:
            findings.output(*output)
        for letter in self.dead:
            findings.dead(letter)
        result = findings.result()
        counts = tuple(result[name] for name in ("lost", "applied_twice", "out_of_order", "unexpected"))
        assert result["clean"] == (counts == (0, 0, 0, 0)) == (not result["notes"])
        return counts


class Scenario(unittest.TestCase):
    def test_same_seed_gives_the_same_messages_with_the_promised_shares(self) -> None:
        messages = list(scenario(20_000, 5))
        self.assertEqual(messages, list(scenario(20_000, 5)))
        self.assertNotEqual(messages, list(scenario(20_000, 6)))
        repeated = len(messages) - len({(message.headers.get("ce-id"), message.payload) for message in messages})
        self.assertTrue(1_800 < repeated < 2_200, repeated)

    def test_truth_has_every_kind(self) -> None:
        truth = Truth(scenario(20_000, 5), 80, 5)
        reasons = Counter(reason for _, _, reason in truth.dead)
        self.assertEqual(
            set(reasons), {"undecodable", "id-conflict", "permanent", "trap", "attempts-exhausted"}
        )
        kinds = Counter(kind for _, kind, _ in truth.outputs)
        self.assertGreater(kinds["com.example.stock.rejected"], 500)


class Checker(unittest.TestCase):
    def setUp(self) -> None:
        self.run_ = Run()

    def test_right_run_is_clean(self) -> None:
        self.assertEqual(self.run_.counts(), (0, 0, 0, 0))

    def test_missing_output_is_lost(self) -> None:
        del self.run_.outputs[self.run_.find("payments")]
        self.assertEqual(self.run_.counts(), (1, 0, 0, 0))

    def test_output_is_caught_twice_under_the_same_id_and_another(self) -> None:
        stream, headers, payload = self.run_.outputs[self.run_.find("shipments")]
        self.run_.outputs.append([stream, headers, payload])
        self.run_.outputs.append([stream, headers | {"ce-id": "other"}, payload])
        self.assertEqual(self.run_.counts(), (0, 2, 0, 0))

    def test_swapped_outputs_of_an_article_are_out_of_order(self) -> None:
        outputs = self.run_.outputs
        sku = lambda index: json.loads(outputs[index][2])["sku"]
        first = self.run_.find("notifications")
        second = next(
            index
            for index in range(first + 1, len(outputs))
            if outputs[index][0] == "notifications" and sku(index) == sku(first)
        )
        outputs[first], outputs[second] = outputs[second], outputs[first]
        self.assertEqual(self.run_.counts(), (0, 0, 1, 0))

    def test_dead_and_applied_is_caught(self) -> None:
        consumer, order, _ = next(letter for letter in self.run_.truth.dead if letter[2] == "trap")
        payload = json.dumps({"order": order, "sku": "sku-0001", "seq": 1}).encode()
        self.run_.outputs.append(["stock", {"ce-type": "com.example.stock.reserved", "ce-id": "x"}, payload])
        self.assertEqual(self.run_.counts(), (0, 0, 0, 1))

    def test_stock_below_zero_is_caught(self) -> None:
        output = next(output for output in self.run_.outputs if output[1]["ce-type"].endswith("rejected"))
        output[1]["ce-type"] = "com.example.stock.reserved"
        self.assertEqual(self.run_.counts(), (1, 0, 0, 1))

    def test_wrong_content_is_caught(self) -> None:
        output = self.run_.outputs[self.run_.find("payments")]
        output[2] = json.dumps(json.loads(output[2]) | {"amount_cents": 1}).encode()
        self.assertEqual(self.run_.counts(), (0, 0, 0, 1))

    def test_dead_letter_is_caught_missing_twice_or_for_another_reason(self) -> None:
        letter = self.run_.dead.pop()
        self.assertEqual(self.run_.counts(), (1, 0, 0, 0))
        self.run_.dead += [letter, letter]
        self.assertEqual(self.run_.counts(), (0, 1, 0, 0))
        self.run_.dead[-2:] = [letter | {"reason": "time-limit"}]
        self.assertEqual(self.run_.counts(), (1, 0, 0, 1))

    def test_dead_letter_is_known_by_its_body_in_any_form(self) -> None:
        index, letter = next(
            (index, letter) for index, letter in enumerate(self.run_.dead) if letter["reason"] == "undecodable"
        )
        order = letter["event"][1]
        body = next((body for body, of in self.run_.truth.orders_of_payloads.items() if of == order))
        del letter["event"]
        for form in ({"message": {"payload": list(body)}}, {"payload": list(body)}):
            self.run_.dead[index] = letter | form
            self.assertEqual(self.run_.counts(), (0, 0, 0, 0))


if __name__ == "__main__":
    unittest.main()
