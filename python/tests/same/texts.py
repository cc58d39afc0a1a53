"""Programs: a task finds globals by text, which its code, an annotation or another global contains."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import operator
import pkgutil
import sys
import timeit
import typing
from unittest import mock

import backends

try:
    import pandas
except ImportError:
    pandas = None

FACTOR, LIMIT = 5, 3
QUERY = "a > @LIMIT"
TARGET = "__main__.times"


class Leaf:
    pass


Alias = typing.List["Leaf"]  # noqa: UP006


@dataclasses.dataclass
class Port:
    number: int = 1


@dataclasses.dataclass
class Settings:
    port: Port
    more: list[Port] = dataclasses.field(default_factory=list)


class Node:
    kids: Alias

    def get(self, leaf: Leaf) -> Node: ...


class Row(typing.NamedTuple):
    port: Port


class Options(typing.TypedDict):
    port: list[Port]


class Referring:
    pass


Referring.__annotations__ = {"a": typing.ForwardRef("Port"), "b": dict[str, "Leaf"], "c": typing.Optional["Node"]}


def hinted(leaf: Leaf, way: typing.Literal["times"], *rest: typing.Annotated[Row, "Node"]) -> Node | None: ...


def times(x):
    return x * FACTOR


def calls_times(x):
    return times(x)


def hints():
    return [typing.get_type_hints(one) for one in (hinted, Settings, Node, Node.get, Row, Options, Referring)]


def signature():
    return str(inspect.signature(hinted, eval_str=True))


def makes_from_annotations():
    kinds = typing.get_type_hints(Settings)
    return Settings(kinds["port"](3), [typing.get_args(kinds["more"])[0](4)])


def evaluates():
    return eval("FACTOR"), [eval("LIMIT") for _ in range(2)]


def attribute_of_main():
    import __main__

    return getattr(__main__, "FACTOR"), getattr(sys.modules["__main__"], "LIM" + "IT")  # noqa: B009


def variables_of_main():
    return vars(sys.modules["__main__"])["FACTOR"], sys.modules["__main__"].__dict__["LIMIT"]


def finds_main():
    return importlib.import_module("__main__").FACTOR, pkgutil.resolve_name("__main__:LIMIT")


def __getattr__(name):
    if name == "MADE":
        return FACTOR * 2
    raise AttributeError(name)


def made_by_main():
    import __main__

    return __main__.MADE, hasattr(__main__, "ABSENT")


def getter():
    return operator.attrgetter("FACTOR")(sys.modules["__main__"])


def frame():
    return sys._getframe().f_globals["FACTOR"], inspect.currentframe().f_globals.get("LIMIT")


def function_globals():
    return times.__globals__["LIMIT"]


def patches():
    with mock.patch("__main__.FACTOR", 10), mock.patch.object(sys.modules["__main__"], "LIMIT", 4):
        return calls_times(2), LIMIT


def patches_by_global():
    with mock.patch(TARGET, lambda x: "patched"):
        return calls_times(2)


def measures():
    return timeit.timeit("times(1)", "from __main__ import times", number=1) >= 0


def query():
    return pandas.DataFrame({"a": range(6)}).query("a > @LIMIT").a.tolist()


def query_in_global():
    return pandas.DataFrame({"a": range(6)}).query(QUERY).a.tolist()


def query_in_two_functions():
    text = "a > @LIMIT and a < @FACTOR"
    return [(lambda: pandas.DataFrame({"a": range(6)}).query(text).a.tolist())() for _ in range(2)]


def expression():
    return pandas.eval("FACTOR + 1"), pandas.DataFrame({"a": [1]}).eval("b = a * @FACTOR").b.tolist()


PROGRAMS = [hints, signature, makes_from_annotations, evaluates, attribute_of_main, variables_of_main]
PROGRAMS += [finds_main, made_by_main, getter, frame, function_globals, patches, patches_by_global, measures]
PROGRAMS += [query, query_in_global, query_in_two_functions, expression] if pandas else []
TASKS = {f"texts: {program.__name__}": program for program in PROGRAMS}


#: With `spawn`, the functions of a task have the globals of another module than `__main__`.
OF_FORK = {"texts: patches", "texts: patches_by_global"}


def names():
    return [(name, ["fork"] if name in OF_FORK else others) for name, others in backends.names_of(TASKS)]


def programs(which):
    # Each in a worker that has got nothing for another program.
    for name, task in TASKS.items():
        yield from backends.submitted(which, {name: task})


if __name__ == "__main__":
    backends.main(programs)
