#!/usr/bin/env python3
"""Whether the host has become slower: measures it against the consumer written by hand and compares with speed.json beside this file.

usage: speed.py --tidegate PATH [--rounds N] [--write]
  --write  keep what was measured as the figures to compare with, after a change that is meant

Compared is the CPU that an event costs the peer and the server to what it costs the host and the server, each in its least disturbed round of
one run, so that another machine changes it little. A busy one still does: let nothing else run. A loss of more than LOSS_MAX fails.
"""
import argparse, json, pathlib, subprocess, sys

LOSS_MAX = 0.15
EVENTS = 60_000
FIGURES = pathlib.Path(__file__).with_name("speed.json")
COMPARED = ("full", "reused", "embedded")


def measured(tidegate, rounds):
    command = [tidegate, "bench", "--json", "--events", str(EVENTS), "--rounds", str(rounds), "--rates", "none"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    least = {line["contender"]: line["cpu_us"]["min"] + line["server_cpu_us"]["min"] for line in report["throughput"]}
    return {name: round(least["handwritten"] / least[name], 3) for name in COMPARED}


def losses(figures, found):
    """Which contenders lost more than they may."""
    return [name for name in COMPARED if found[name] < figures[name] * (1 - LOSS_MAX)]


def self_test():
    figures = dict.fromkeys(COMPARED, 1.0)
    assert losses(figures, figures) == []
    assert losses(figures, {**figures, "full": 0.84}) == ["full"]
    assert losses(figures, {**figures, "full": 0.86, "reused": 2.0}) == []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidegate", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    self_test()
    found = measured(arguments.tidegate, arguments.rounds)
    if arguments.write:
        FIGURES.write_text(json.dumps(found, indent=2) + "\n")
        print(f"{FIGURES.name}: {found}")
        return 0
    figures = json.loads(FIGURES.read_text())
    for name in COMPARED:
        print(f"{name:10} CPU to handwritten {found[name]:.2f}, was {figures[name]:.2f}")
    lost = losses(figures, found)
    if lost:
        print(f"slower by more than {LOSS_MAX:.0%}: {', '.join(lost)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
