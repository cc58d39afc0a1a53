"""The figures as a table and as JSON."""

import datetime
import importlib.metadata
import os
import platform
import sys

from . import measure, rows, systems


def name_of(key):
    return systems.ALL[key].name if key in systems.ALL else key


def number(value):
    """Formats a number with three digits and separators of thousands."""
    if value is None:
        return "–"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine():
    """Describes the machine: processors, kernel, Python, packages."""
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    versions = {}
    peers = ("joblib", "scikit-learn", "loky", "pebble", "ray", "distributed", "pyarrow", "polars", "duckdb", "dask")
    for package in ("arenite", "numpy", "opencv-python-headless", *peers):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": model,
        "cores": os.cpu_count(),
        # Without the suffix of a distribution or a cloud.
        "linux": platform.release().partition("-")[0],
        "python": sys.version.split()[0],
        "packages": versions,
    }


def describe(machine):
    packages = ", ".join(f"{package} {version}" for package, version in machine["packages"].items())
    linux, python = machine["linux"], machine["python"]
    words = [machine["processor"], f"{machine['cores']} cores", f"Linux {linux}", f"Python {python}"]
    words += filter(None, [machine.get("date")])
    return f"{', '.join(words)}; {packages}"


def factor(row, ours, theirs):
    """Describes how other systems compare with arenite."""
    if not ours or not theirs or row.whole:
        return ""
    ratio = theirs / ours if row.less_is_better else ours / theirs
    if 0.95 <= ratio <= 1.05:
        return "the same"
    times = number(float(f"{max(ratio, 1 / ratio):.2g}"))
    return f"{times} × slower" if ratio > 1 else f"{times} × faster"


def table(figures, medians):
    """Returns a row as lines of text."""
    row = figures.row
    lines = [f"{row.title} ({row.unit}, {'less' if row.less_is_better else 'more'} is better)  [{row.name}]"]
    ours = figures.median("arenite")
    for key in sorted({*figures.samples, *figures.notes}, key=lambda key: (key != "arenite", key)):
        median = figures.median(key)
        note = figures.notes.get(key, "")
        low_high = ""
        if len(samples := figures.samples.get(key, [])) > 1:
            low_high = f"[{number(min(samples))} to {number(max(samples))}]"
        than = factor(row, ours, median) if key != "arenite" else ""
        lines.append(f"  {name_of(key):<22}{number(median):>12}  {low_high:<26}{than:<16}{note}".rstrip())
    for goal in row.goals:
        if judged := goal.judge(row.name, medians):
            text, ratio, reached = judged
            unit = "" if goal.other else f" {row.unit}"
            lines.append(f"  goal: {text}{unit}: {number(ratio)}{unit}  {'reached' if reached else 'MISSED'}")
    return "\n".join(lines)


def as_json(all_figures, medians, machine, workers):
    found = []
    for figures in all_figures:
        row = figures.row
        goals = []
        for goal in row.goals:
            if judged := goal.judge(row.name, medians):
                goals.append(dict(zip(("goal", "ratio", "reached"), judged)))
        found.append(
            {
                "name": row.name,
                "title": row.title,
                "unit": row.unit,
                "less_is_better": row.less_is_better,
                "systems": {
                    key: {"median": figures.median(key), "samples": samples} for key, samples in figures.samples.items()
                },
                "notes": {key: note for key, note in figures.notes.items() if note},
                "goals": goals,
            }
        )
    return {"machine": machine, "workers": workers, "rows": found}


def from_json(found):
    """Returns the machine and the figures from the result of `as_json`."""
    all_figures = []
    for row in found["rows"]:
        figures = measure.Figures(rows.ALL[row["name"]]())
        figures.samples = {key: system["samples"] for key, system in row["systems"].items()}
        figures.notes = dict(row["notes"])
        all_figures.append(figures)
    return found["machine"], all_figures
