"""`python -m arenite.bench`: measures arenite beside the other pools that are installed."""

import argparse
import json
import sys
import time

from . import measure, report, rows, svg, systems


def names(known):
    def split(text):
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return chosen

    return split


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m arenite.bench",
        description="Measures arenite beside the pools that are installed, in turns, and prints medians. "
        "A whole run takes about fifteen minutes, and needs 8 GiB of memory. Rows of the store need the command `arenite`, "
        "on PATH or in ARENITE_COMMAND.",
    )
    parser.add_argument("--rows", type=names(rows.ALL), metavar="ROW,…", help="only these rows")
    parser.add_argument("--systems", type=names(systems.ALL), metavar="SYSTEM,…", help="only these systems")
    parser.add_argument("--workers", type=int, default=2, help="workers of each system (2)")
    limit = "for each system in a row; longer turns are stopped (30)"
    parser.add_argument("--limit", type=float, default=30, metavar="SECONDS", help=limit)
    parser.add_argument("--quick", action="store_true", help="three turns each, and without the rows on 1 GiB")
    parser.add_argument("--json", metavar="FILE", help="write all samples; - is the output, in the place of the table")
    parser.add_argument("--svg", metavar="FILE.svg", help="draw a chart, and FILE-dark.svg for dark pages")
    parser.add_argument("--linear", action="store_true", help="draw bars from zero, not on a log scale")
    parser.add_argument("--from", dest="source", metavar="FILE", help="take the figures from a file that --json wrote")
    parser.add_argument("--list", action="store_true", help="list rows and systems, and measure nothing")
    return parser.parse_args(arguments)


def show_list():
    for name, row in rows.ALL.items():
        print(f"{name:<18}{row.title} ({row.unit})")
    print()
    for key, system in systems.ALL.items():
        print(f"{key:<18}{system.name}{'' if system.is_installed() else f' (not installed: {system.package})'}")


def main(arguments=None):
    options = parse(arguments)
    if options.list:
        show_list()
        return
    keys = [key for key in options.systems or systems.ALL if systems.ALL[key].is_installed()]
    chosen = options.rows or [name for name, row in rows.ALL.items() if not (options.quick and row.long)]
    machine, all_figures = report.machine(), []
    if options.source:
        chosen = []
        with open(options.source) as file:
            machine, all_figures = report.from_json(json.load(file))
    to_table = sys.stderr if options.json == "-" else sys.stdout
    print(report.describe(machine), file=to_table)
    medians = {figures.row.name: figures.medians() for figures in all_figures}
    for figures in all_figures:
        print("\n" + report.table(figures, medians), file=to_table)
    on_terminal, said = sys.stderr.isatty(), time.monotonic()

    def say(words):
        nonlocal said
        if on_terminal:
            print(f"\r\x1b[K{name}: {words}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - said > 10:
            print(f"{name}: {words}", file=sys.stderr, flush=True)
            said = time.monotonic()

    for name in chosen:
        figures = measure.measure(rows.ALL[name](), keys, options.workers, options.quick, say, options.limit)
        all_figures.append(figures)
        medians[name] = figures.medians()
        if on_terminal:
            print("\r\x1b[K", end="", file=sys.stderr)
        # Goals may refer to later rows: the JSON at the end judges them again.
        print("\n" + report.table(figures, medians), file=to_table, flush=True)
    if options.json:
        text = json.dumps(report.as_json(all_figures, medians, machine, options.workers), indent=1, ensure_ascii=False)
        if options.json == "-":
            print(text)
        else:
            with open(options.json, "w") as file:
                file.write(text + "\n")
    if options.svg:
        for name, colours in ((options.svg, svg.LIGHT), (options.svg.removesuffix(".svg") + "-dark.svg", svg.DARK)):
            with open(name, "w") as file:
                file.write(svg.draw(all_figures, machine, colours, options.linear))


if __name__ == "__main__":
    main()
