"""Globals that a task finds by text, in its code, in annotations or in other globals. On fork and spawn.

Each program has a worker of its own, which has got nothing for another one.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import operator
import pkgutil
import sys
import timeit
import typing

import backends

try:
    import pandas
except ImportError:
    pandas = None

FACTOR, LIMIT = 5, 3
QUERY = "a > @LIMIT"


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
    "annotations that are text"
    return [typing.get_type_hints(one) for one in (hinted, Settings, Node, Node.get, Row, Options, Referring)]


def signature():
    "a signature with annotations that are text"
    return str(inspect.signature(hinted, eval_str=True))


def makes_from_annotations():
    "objects of classes that annotations name"
    kinds = typing.get_type_hints(Settings)
    return Settings(kinds["port"](3), [typing.get_args(kinds["more"])[0](4)])


def evaluates():
    "names in eval"
    return eval("FACTOR"), [eval("LIMIT") for _ in range(2)]


def attribute_of_main():
    "attributes of __main__ by name"
    import __main__

    return getattr(__main__, "FACTOR"), getattr(sys.modules["__main__"], "LIM" + "IT")  # noqa: B009


def variables_of_main():
    "the dictionary of __main__"
    return vars(sys.modules["__main__"])["FACTOR"], sys.modules["__main__"].__dict__["LIMIT"]


def finds_main():
    "__main__ that importlib finds"
    return importlib.import_module("__main__").FACTOR, pkgutil.resolve_name("__main__:LIMIT")


def __getattr__(name):
    if name == "MADE":
        return FACTOR * 2
    raise AttributeError(name)


def made_by_main():
    "__getattr__ of __main__"
    import __main__

    return __main__.MADE, hasattr(__main__, "ABSENT")


def getter():
    "a getter of an attribute of __main__"
    return operator.attrgetter("FACTOR")(sys.modules["__main__"])


def frame():
    "globals of the frame"
    return sys._getframe().f_globals["FACTOR"], inspect.currentframe().f_globals.get("LIMIT")


def function_globals():
    "globals of a function"
    return times.__globals__["LIMIT"]


def measures():
    "code that timeit runs"
    return timeit.timeit("times(1)", "from __main__ import times", number=1) >= 0


def query():
    "a query of pandas that names a global"
    return pandas.DataFrame({"a": range(6)}).query("a > @LIMIT").a.tolist()


def query_in_global():
    "a query of pandas that is a global"
    return pandas.DataFrame({"a": range(6)}).query(QUERY).a.tolist()


def query_in_two_functions():
    "a query of pandas in a closure"
    text = "a > @LIMIT and a < @FACTOR"
    return [(lambda: pandas.DataFrame({"a": range(6)}).query(text).a.tolist())() for _ in range(2)]


def expression():
    "expressions of pandas"
    return pandas.eval("FACTOR + 1"), pandas.DataFrame({"a": [1]}).eval("b = a * @FACTOR").b.tolist()


if pandas is None:
    del query, query_in_global, query_in_two_functions, expression

if __name__ == "__main__":
    backends.run(globals(), is_fresh=True)
