"""What a row of measurements is, and what its figures are to reach."""

import importlib.util
import time


class Goal:
    """What a figure of arenite is to reach: `figure <= factor * other`, or `>=`."""

    def __init__(self, sign, factor, other=None, row=None):
        self.sign, self.factor, self.other, self.row = sign, factor, other, row

    def judge(self, name, figures):
        """`(text, ratio, reached)`; None where a figure is missing. `figures`: by row and system."""
        ours = figures.get(name, {}).get("arenite")
        theirs = 1.0 if self.other is None else figures.get(self.row or name, {}).get(self.other)
        if ours is None or theirs is None:
            return None
        ratio = ours / theirs
        reached = ratio <= self.factor if self.sign == "<=" else ratio >= self.factor
        of = "" if self.other is None else f" × {self.other}"
        return f"{'≤' if self.sign == '<=' else '≥'} {self.factor:.3g}{of}", ratio, reached


class Row:
    """`sample(system)` measures once; `name`, `title`, `unit` and `less_is_better` say what."""

    name = title = unit = None
    less_is_better = True
    #: The most that a figure can be, where figures are counts of it: charts draw them from zero to this.
    whole = None
    rounds = 9
    #: Systems that cannot do this work, or are not measured because it would say nothing.
    without = ()
    goals = ()
    #: Whether `--quick` leaves it out.
    long = False
    needs = ()
    #: Whether a small input will do. Set before `prepare`.
    is_quick = False

    def missing(self):
        """What this machine lacks for it, in words. Called after `is_quick` is set."""
        return [package for package in self.needs if not self.is_there(package)]

    @staticmethod
    def is_there(package):
        return importlib.util.find_spec(package) is not None

    def prepare(self):
        """Makes the input, once for all systems."""

    def finish(self):
        """Lets go of what `prepare` made."""

    def baselines(self):
        """What is measured beside the systems, by name: functions that measure once. Called after `begin`."""
        return {}

    def begin(self, system):
        """What a system does once, before its first sample, untimed."""

    def sample(self, system):
        raise NotImplementedError

    def end(self, system):
        """Lets go of what `begin` made."""


class NotInstalled(Exception):
    """A baseline's program is not installed."""


def timed(function, *arguments):
    begin = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - begin, result


def check(true, what):
    if not true:
        raise AssertionError(f"wrong result: {what}")
