"""A row of measurements, and the goals for its figures."""

import importlib.util
import time


class Goal:
    """A goal for a figure of arenite: `figure <= factor * other`, or `>=`."""

    def __init__(self, sign, factor, other=None, row=None):
        self.sign, self.factor, self.other, self.row = sign, factor, other, row

    def judge(self, name, figures):
        """Returns `(text, ratio, reached)`; None if a figure is missing. `figures`: by row and system."""
        ours = figures.get(name, {}).get("arenite")
        theirs = 1.0 if self.other is None else figures.get(self.row or name, {}).get(self.other)
        if ours is None or theirs is None:
            return None
        ratio = ours / theirs
        reached = ratio <= self.factor if self.sign == "<=" else ratio >= self.factor
        of = "" if self.other is None else f" × {self.other}"
        return f"{'≤' if self.sign == '<=' else '≥'} {self.factor:.3g}{of}", ratio, reached


class Row:
    """`sample(system)` measures once. `name`, `title`, `unit` and `less_is_better` describe the figures."""

    name = title = unit = None
    less_is_better = True
    #: The largest possible figure, if figures are counts out of it: charts have an axis from zero to this number.
    whole = None
    rounds = 9
    #: Systems that cannot do this work, or whose figures would be meaningless.
    without = ()
    goals = ()
    #: Whether `--quick` leaves the row out.
    long = False
    needs = ()
    #: Whether the row uses a small input. Set before `prepare`.
    is_quick = False

    def missing(self):
        """Describes what this machine lacks for the row. Called after `is_quick` is set."""
        return [package for package in self.needs if not self.is_there(package)]

    @staticmethod
    def is_there(package):
        return importlib.util.find_spec(package) is not None

    def prepare(self):
        """Makes the input, once for all systems."""

    def finish(self):
        """Frees the input."""

    def baselines(self):
        """Returns further functions that measure once, by name. Called after `begin`."""
        return {}

    def begin(self, system):
        """Prepares a system before its first sample, untimed."""

    def sample(self, system):
        raise NotImplementedError

    def end(self, system):
        """Frees what `begin` has made."""


class NotInstalled(Exception):
    """The program of a baseline is not installed."""


def timed(function, *arguments):
    begin = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - begin, result


def check(true, what):
    if not true:
        raise AssertionError(f"wrong result: {what}")
