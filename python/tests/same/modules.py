"""Globals that are objects of modules that workers import: of the standard library, and of the program. On fork and
spawn."""

import atexit
import builtins
import gettext
import importlib
import os
import pathlib
import shutil
import sys
import tempfile
from logging import root
from os import environ
from random import random, seed
from random import randint as draw
from string import digits
from sys import argv
from sys import path as search_path
from warnings import filters

import backends

SOURCE = """
import collections, random

R, L, S = {}, [], set()
D, C, Q, O = collections.defaultdict(list), collections.Counter(), collections.deque(), collections.OrderedDict()
CONFIG = {"debug": False, "nested": {"n": 1}}


class Registry:
    def __init__(self):
        self.items = {}

    def add(self, name):
        self.items[name] = len(name)
        return len(self.items)


class Open:
    def __init__(self):
        self.file, self.number = open("/dev/null"), 0

    def bump(self):
        self.number += 1
        return self.number


registry, opened = Registry(), Open()
add, bump, uniform = registry.add, opened.bump, random.Random().uniform


class Shown:
    def name(self):
        return super().__repr__()[:15], isinstance(self, Shown)


# The public name of the class: a module that only some programs import.
Shown.__module__ = "shown"


def load(name):
    R[name] = len(name)
    for one in (L, Q):
        one.append(name)
    S.add(name)
    D[name].append(1)
    C[name] += 1
    O[name] = 1
    return add(name)


def total():
    return [len(one) for one in (R, L, S, D, C, Q, O, registry.items)]


def debug():
    return CONFIG["debug"], CONFIG["nested"], "more" in CONFIG
"""

FOLDER = os.environ.get("SAME_MODULES")
if FOLDER is None:
    FOLDER = os.environ["SAME_MODULES"] = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, FOLDER)
    pathlib.Path(FOLDER, "plugged.py").write_text(SOURCE)
    pathlib.Path(FOLDER, "shown.py").write_text("from plugged import Shown")
sys.path.insert(0, FOLDER)
importlib.invalidate_caches()

from plugged import CONFIG, C, D, L, O, Q, R, S, Shown, add, bump, debug, load, opened  # noqa: E402
from plugged import registry, total, uniform  # noqa: E402
from plugged import L as LINES  # noqa: E402

CONFIG["debug"] = CONFIG["more"] = True
CONFIG["nested"]["n"] = 2
HELD = {"r": R, "environment": environ, "draw": draw, "lines": [LINES, L]}


class Task:
    registry = registry
    draw = staticmethod(uniform)

    def __init__(self, lines=L):
        self.lines = lines

    def run(self, name):
        known = load(name), self.lines[-1], self.lines is LINES, Task.registry.items[name]
        return *known, type(Task.draw(0, 1)).__name__


TASK = Task()


def loads(name):
    load(name)
    found = R[name], L[-1], LINES[-1], name in S, D[name], C[name], Q[-1], O[name], registry.items[name]
    return *found, total(), add(f"{name}!")


def holds(name):
    load(name)
    held = HELD["r"] is R, HELD["r"][name], HELD["environment"] is os.environ, HELD["lines"][0] is HELD["lines"][1]
    return *held, HELD["lines"][1][-1], HELD["draw"](3, 3)


def reads(name):
    return name in R, name in registry.items, debug(), CONFIG["debug"]


def opens():
    "an object of a module with an open file"
    return opened.bump(), bump(), opened is bump.__self__


def libraries():
    "objects of the standard library under other names"
    environ["SAME"] = "1"
    seed(7)
    known = os.environ.pop("SAME"), random(), draw(1, 100), search_path is sys.path, argv is sys.argv
    return *known, root.name, filters is sys.modules["warnings"].filters, digits


gettext.install("same")
builtins.shout = lambda text: f"{text.upper()} {digits}"


def uses_builtins():
    "builtins that the program adds"
    return _("text"), shout("a"), [shout("b") for _ in range(2)], hasattr(builtins, "shout"), len("abc")  # noqa: F821


def shows(shown):
    return shown.name(), type(shown) is Shown, type(shown).__module__, Shown


def numbers():
    return random(), draw(0, 1 << 60), uniform(0, 1)


def in_order(on):
    "objects of a module of the program: registries, containers, methods"
    for _ in range(2):
        for task, name in ((loads, "abc"), (reads, "abc"), (holds, "abcd"), (TASK.run, "de"), (reads, "abcd")):
            yield on.ex.submit(task, name).result()


def shown_elsewhere(on):
    "a class whose module is another one than where it is defined"
    yield [on.ex.submit(shows, Shown()).result() for _ in range(2)]


def numbers_differ(on):
    "random numbers of workers, each with its own"
    with on.executor() as one, on.executor() as other:
        yield len({number for ex in (one, other) for _ in range(3) for number in ex.submit(numbers).result()}) > 9


if __name__ == "__main__":
    backends.run(globals())
