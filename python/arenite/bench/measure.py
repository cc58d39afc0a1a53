"""Takes the samples of a row, from the systems in turns, so that noise hits all of them."""

import gc
import statistics
import time
import warnings

from . import rows, systems
from .row import NotInstalled


class Figures:
    """The samples of one row, by system, and the notes about them."""

    def __init__(self, row):
        self.row = row
        self.samples = {}
        self.notes = {}

    def median(self, key):
        return statistics.median(self.samples[key]) if self.samples.get(key) else None

    def medians(self):
        return {key: self.median(key) for key in self.samples if self.samples[key]}


def measure(row, keys, workers, quick, say):
    """Measures a row in the systems of `keys`. `say(text)` reports progress."""
    figures = Figures(row)
    row.is_quick = quick
    if missing := row.missing():
        figures.notes["arenite"] = "needs " + " and ".join(missing)
        return figures
    keys = [key for key in keys if key not in row.without]
    rounds = min(row.rounds, 3) if quick else row.rounds
    with warnings.catch_warnings():
        # The systems call `fork` in programs with threads, which Python warns about.
        warnings.simplefilter("ignore")
        if isinstance(row, rows.InChild):
            for turn in range(rounds):
                for key in keys:
                    if turn >= 3 and systems.ALL[key].heavy:
                        continue
                    say(f"{turn + 1}/{rounds} {key}")
                    figure, figures.notes[key] = row.sample(key, workers)
                    if figure is not None:
                        figures.samples.setdefault(key, []).append(figure)
            return figures
        try:
            row.prepare()
        except OSError as error:
            figures.notes["arenite"] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
            return figures
        try:
            # Heavy systems keep the cores busy even when idle, so their turns come after those of the others.
            for group in (
                [key for key in keys if not systems.ALL[key].heavy],
                [key for key in keys if systems.ALL[key].heavy],
            ):
                with systems.started(group, workers) as (running, failed):
                    figures.notes.update(failed)
                    take_turns(row, running, rounds, figures, say)
        finally:
            row.finish()
    return figures


def take_turns(row, running, rounds, figures, say):
    spent = {}

    def attempt(key, function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:
            figures.notes[key] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
            running.pop(key, None)
            return None

    def measured(name, baseline):
        try:
            return baseline()
        except ImportError as error:
            figures.notes[name] = f"not installed: {error.name}"
        except NotInstalled as error:
            figures.notes[name] = f"not installed: {error}"
        except Exception as error:
            figures.notes[name] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        return None

    for key, system in list(running.items()):
        say(f"warming up {key}")
        attempt(key, row.begin, system)
        begin = time.perf_counter()
        if key in running:
            attempt(key, row.sample, system)
        spent[key] = time.perf_counter() - begin
    baselines = dict(attempt(None, row.baselines) or {}) if running else {}
    for name, baseline in list(baselines.items()):
        say(f"warming up {name}")
        if measured(name, baseline) is None:
            del baselines[name]
    for turn in range(rounds):
        for key, system in list(running.items()):
            # A slow system takes part in the first turns only.
            if spent[key] > 5 and turn >= (3 if spent[key] < 20 else 1):
                continue
            say(f"{turn + 1}/{rounds} {key}")
            gc.collect()
            figure = attempt(key, row.sample, system)
            if figure is not None:
                figures.samples.setdefault(key, []).append(figure)
        for name, baseline in baselines.items():
            say(f"{turn + 1}/{rounds} {name}")
            gc.collect()
            if (figure := measured(name, baseline)) is not None:
                figures.samples.setdefault(name, []).append(figure)
        if hasattr(row, "alone") and "threads" in running:
            figures.samples.setdefault("numpy", []).append(row.alone())
    for key, system in list(running.items()):
        attempt(key, row.end, system)
