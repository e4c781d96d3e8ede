"""Run sections of the benchmark; see bench/run and docs/performance.md."""

import importlib
import json
import shutil
import sys

import common

SECTIONS = ("flat", "wire", "vset", "imports", "rows", "recall", "ann", "build", "scalar",
            "memtable", "inserts", "resp", "large", "s3cold", "s3warm", "s3ingest", "s3open")
DOCUMENT = common.ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- begin: figures, written by bench/run --keep -->", "<!-- end -->"


def cell(line):
    verdict = "" if line["holds"] is None else " holds" if line["holds"] else " **falls short**"
    return (f"| {line['what']} | {common.number_text(line['value'])} {line['unit']} | "
            f"{line['target'] or ''}{verdict} | {line['note']} |")


def keep():
    """Copy the figures into bench/results/ and into the document."""
    if common.SCALE != 1:
        sys.exit("--keep needs BENCH_SCALE 1")
    folder = common.ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    # What was not measured anew stays as it was last kept.
    earlier = sorted(folder.glob("*.json"))
    sections = {s["section"]: s for s in json.loads(earlier[-1].read_text())} if earlier else {}
    for name in SECTIONS:
        path = common.OUT / f"{name}.json"
        if path.exists():
            section = sections[name] = json.loads(path.read_text())
            if section.pop("scale") != 1:
                sys.exit(f"the figures of {name} have another scale: measure it again")
            del section["raw"]
    found = [sections[name] for name in SECTIONS if name in sections]
    date = max(section["machine"]["date"] for section in found)[:10]
    (folder / f"{date}.json").write_text(json.dumps(found, indent=1) + "\n")
    plot = common.OUT / "ann.png"
    if plot.exists():
        shutil.copy(plot, folder / f"{date}-ann.png")
    machine = found[0]["machine"]
    text = [BEGIN, "", f"Measured {date} on {machine['cores']} cores of {machine['cpu']} (family "
            f"{machine['family']}, model {machine['model']}; level-2 cache {machine['l2']}, level-3 "
            f"{machine['l3']}), {machine['memory_mib'] // 1024} GiB, Linux {machine['kernel']}, "
            f"{machine['compiler'].replace('cc ', 'gcc ')}; faiss {machine['faiss']}, pyarrow "
            f"{machine['pyarrow']}, {machine['redis']}. All figures with their machine, versions and "
            f"commands are in `bench/results/{date}.json`.", ""]
    for section in found:
        load = section["machine"]["load"]
        text += [f"### {section['section']}", "", f"{section['data'][0].upper()}{section['data'][1:]}. "
                 f"Load average when it began: {load[0]}; niceness {section['machine']['nice']}.",
                 "",
                 "| what | figure | target | |", "| --- | ---: | --- | --- |",
                 *map(cell, section["lines"]), ""]
        plots = sorted(folder.glob("*-ann.png"))
        if section["section"] == "ann" and plots:
            text += [f"![Recall against speed](../bench/results/{plots[-1].name})", ""]
    before, rest = DOCUMENT.read_text().split(BEGIN)
    DOCUMENT.write_text(before + "\n".join(text) + END + rest.split(END)[1])


def main():
    asked = [word for word in sys.argv[1:] if word != "--keep"] or SECTIONS
    if asked == ["prepare"]:
        importlib.import_module("prepare").prepare()
        return
    for name in asked:
        if name not in SECTIONS:
            sys.exit(f"no section {name}; there are {', '.join(SECTIONS)}")
    machine = common.machine()
    print("machine: " + ", ".join(f"{key} {value}" for key, value in machine.items()))
    failed = []
    for name in asked:
        module = importlib.import_module(f"section_{name}")
        machine = dict(machine, load=common.load())
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
    if "--keep" in sys.argv[1:]:
        keep()


main()
