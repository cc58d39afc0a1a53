"""Takes the samples of a row, from the systems in turns, so that noise hits all of them."""

import contextlib
import functools
import gc
import signal
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


class TooSlow(BaseException):
    """A system has used up its time. No exception that a library would take for an error of a task."""


@contextlib.contextmanager
def limited(seconds):
    """Raises `TooSlow` in the block if that lasts longer. The main thread alone gets signals; others have no limit."""

    def stop(_signal, _frame):
        raise TooSlow(f"not done within {seconds:g} s (--limit)")

    try:
        before = signal.signal(signal.SIGALRM, stop)
    except ValueError:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(row, keys, workers, quick, say, limit=30):
    """Measures a row in the systems of `keys`. `say(text)` reports progress.

    A system takes part in turns until these have lasted `limit` seconds. A turn that lasts longer is stopped.
    """
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
                    take_turns(row, running, rounds, figures, say, limit)
        finally:
            row.finish()
    return figures


def take_turns(row, running, rounds, figures, say, limit):
    spent = {}

    def attempt(key, function, *arguments):
        """Calls a function of a system, or of a baseline. None if that fails: then it takes no further part."""
        begin = time.perf_counter()
        try:
            with limited(limit):
                return function(*arguments)
        except ImportError as error:
            figures.notes[key] = f"not installed: {error.name}"
        except NotInstalled as error:
            figures.notes[key] = f"not installed: {error}"
        except TooSlow as error:
            figures.notes[key] = str(error)
        except Exception as error:
            figures.notes[key] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        finally:
            spent[key] = spent.get(key, 0) + time.perf_counter() - begin
        running.pop(key, None)
        samplers.pop(key, None)
        return None

    samplers = {}
    for key, system in list(running.items()):
        say(f"warming up {key}")
        samplers[key] = functools.partial(row.sample, system)
        attempt(key, row.begin, system)
        if key in running:
            attempt(key, samplers[key])
    if running:
        for name, baseline in (attempt(None, row.baselines) or {}).items():
            say(f"warming up {name}")
            samplers[name] = baseline
            attempt(name, baseline)
    for turn in range(rounds):
        for key in list(samplers):
            if turn and spent[key] > limit:
                continue
            say(f"{turn + 1}/{rounds} {key}")
            gc.collect()
            figure = attempt(key, samplers[key])
            if figure is not None:
                figures.samples.setdefault(key, []).append(figure)
        if hasattr(row, "alone") and "threads" in running:
            figures.samples.setdefault("numpy", []).append(row.alone())
    for key, system in list(running.items()):
        attempt(key, row.end, system)
