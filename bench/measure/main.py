"""Run sections of the benchmark; see bench/run and docs/performance.md."""

import importlib
import sys

import common

SECTIONS = ("flat", "wire", "vset", "imports", "rows", "recall")


def main():
    asked = sys.argv[1:] or SECTIONS
    for name in asked:
        if name not in SECTIONS:
            sys.exit(f"no section {name}; there are {', '.join(SECTIONS)}")
    machine = common.machine()
    print("machine: " + ", ".join(f"{key} {value}" for key, value in machine.items()))
    failed = []
    for name in asked:
        module = importlib.import_module(f"section_{name}")
        machine = dict(machine, load=common.machine()["load"])
        try:
            section = module.measure()
        except Exception as problem:  # one section's failure leaves the others their turn
            failed.append(name)
            print(f"\n{name}: failed: {problem}", file=sys.stderr)
            continue
        section.print()
        section.write(machine)
        sys.stdout.flush()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


main()
