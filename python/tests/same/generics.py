"""Type parameters, as Python 3.12 has them. On fork and spawn."""

import collections.abc
import dataclasses
import sys
import typing

import backends


class Box[U]:
    def __init__(self, content: U):
        self.content = content

    def get(self) -> U:
        return self.content


class Numbers[V: int](Box[V]):
    def twice(self):
        return 2 * self.content


class Texts[W: (str, bytes)]:
    def parts(self):
        return [one.__name__ for one in Texts.__type_params__[0].__constraints__]


class Ordered[C: Ordered]:
    def bound(self):
        return Ordered.__type_params__[0].__bound__ is Ordered


@dataclasses.dataclass
class Node[K]:
    key: K
    kids: "list[Node[K]]" = dataclasses.field(default_factory=list)


class Call[**P, R]:
    def __init__(self, function: collections.abc.Callable[P, R]):
        self.function = function

    def __call__(self, *args: P.args, **options: P.kwargs) -> R:
        return self.function(*args, **options)


class Row[*Ts](tuple[*Ts]):
    pass


class Options[X](typing.TypedDict):
    value: X


class Pair[A, B](typing.NamedTuple):
    first: A
    second: B


class Runs[X](typing.Protocol):
    def run(self) -> X: ...


type Two[A] = tuple[A, A]
type Tree[L] = list[Tree[L]] | L
type Fixed = int | str
Item = typing.TypeVar("Item")
Named = typing.TypeAliasType("Named", list[Item], type_params=(Item,))


def first[X](values: list[X]) -> X:
    return values[0]


def keeps[X: int](value: X) -> X:
    return value


def boxes():
    "generic classes, and a child with a bound"
    numbers = Numbers(3)
    is_same = Numbers.__orig_bases__[0].__args__[0] is Numbers.__type_params__[0]
    return numbers.twice(), numbers.get(), Box("a").get(), is_same


def parameters():
    "type parameters of classes, functions and aliases"
    found = [Box, Numbers, Texts, Node, Call, Row, Options, Pair, Runs, first, Two, Tree]
    return [[(repr(one), type(one).__name__) for one in made.__type_params__] for made in found]


def bounds():
    "bounds and constraints of type parameters"
    found = Numbers.__type_params__ + Box.__type_params__ + keeps.__type_params__
    return [one.__bound__ for one in found], Texts().parts(), Ordered().bound()


def calls():
    "parameter specifications, and generic functions"
    x = 3
    return Call(first)([x]), first([x, 4]), keeps(x), repr(first.__annotations__)


def nodes():
    "a generic dataclass"
    return dataclasses.asdict(Node(3, [Node("a")])), Node.__parameters__ == Node.__type_params__


def rows():
    "generic tuples, typed dictionaries and named tuples"
    return Row((1, 2)), Options(value=3), Pair(1, "a"), Pair(1, 2)._replace(first="b"), list(Options.__annotations__)


def aliases():
    "aliases of types"
    return repr((Two[int], Two.__value__, Tree.__type_params__, Fixed.__value__, Tree.__value__))


def homes_of_aliases():
    "modules and names of aliases"
    class Within:
        type Inner[A] = list[A] | Inner[A]

    made = Two, Tree, Fixed, Named, Within.Inner
    return [(repr(one), repr(one[int]) if one.__type_params__ else "", one.__module__) for one in made], homes_of(made)


def homes_of(made):
    return [getattr(one, "__qualname__", None) for one in made]


class Holds:
    type Held[A] = tuple[A, Held[A]]
    type Alone = list[Alone]


def aliases_within():
    "aliases in a class"
    return repr((Holds.Held, Holds.Held[int], Holds.Alone, Holds.Alone.__value__)), homes_of((Holds.Held, Holds.Alone))


def same_in_two_tasks():
    "a type parameter that is one object"
    return BOX.__type_params__[0] is Box.__type_params__[0], BOX is Box


BOX = Box


def local():
    "a local generic function"
    def inner[Y: int](value: Y) -> Y:
        return value

    return inner(3), inner.__type_params__[0].__bound__


if sys.version_info >= (3, 13):
    exec("class Default[D = int]: pass\nclass Defaults[*Ts = *tuple[int, str]]: pass")

    def defaults():
        "defaults of type parameters"
        return [globals()[name].__type_params__[0].__default__ for name in ("Default", "Defaults")]


if __name__ == "__main__":
    backends.run(globals())
