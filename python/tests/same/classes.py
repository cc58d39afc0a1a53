"""Classes whose base or metaclass is imported and does something when a class is made. On fork and spawn."""

import abc
import dataclasses

import backends
import plugins


class Json(plugins.Parser, extension=".json"):
    def parse(self, x):
        return __class__.__name__, x


class Middle(plugins.Parser, extension=".middle"):
    children = []

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(extension=cls.__name__)
        Middle.children.append(cls.__name__)


class Low(Middle):
    pass


@dataclasses.dataclass
class Data(plugins.Parser, extension=".data"):
    x: int = 1


class Abstract(plugins.Parser, abc.ABC, extension=".abstract"):
    @abc.abstractmethod
    def run(self): ...


class Concrete(Abstract, extension=".concrete"):
    def run(self):
        return 6


class First(plugins.Named):
    name = "first"


class Second(First):
    name = "second"


class Wrapped(plugins.Wrapping):
    def run(self, x):
        return x


class Tagged(plugins.Tagged, tag="x"):
    pass


class Untagged(plugins.Tagged):
    pass


class Ints(plugins.Box[int], item=int):
    x: int = 3


class Latin(plugins.Letters, alphabet="latin"):
    A = 1
    B = "b"


class Rows(plugins.Table, table="rows"):
    def get(self):
        return self.table


class MoreRows(Rows, table="more"):
    def get(self):
        return super().get() + "!"


class ByMeta(plugins.NamedByMeta):
    name, other = "by meta", 3


class Running(plugins.Running):
    x = 5

    def run(self):
        return self.x


class Ordered(plugins.Ordered):
    b = 1
    a = 2

    def run(self):
        return 5


class High(plugins.Level, level=3, kind="high"):
    def get(self):
        return __class__.level, self.kind


def needs_a_keyword():
    "an imported base that needs a keyword"
    return Json().parse(1), Json.__bases__


def passes_keywords_on():
    "a class that passes keywords on to an imported base"
    return Low().children, Low.__mro__[2].__name__


def data():
    "a dataclass whose imported base needs a keyword"
    return Data(3), Data() == Data(1)


def abstract():
    "an abstract class whose imported base needs a keyword"
    try:
        Abstract()
    except TypeError as error:
        return str(error), Concrete().run(), Abstract.__abstractmethods__


def wraps():
    "an imported base that wraps a method of its children"
    return Wrapped().run(2)


def has_a_keyword():
    "an imported base with a keyword that has a default"
    return Tagged.tag, Untagged.tag


def generic():
    "a child of an imported generic class"
    return Ints.item, Ints.x, Ints.__orig_bases__, Ints.__parameters__


def letters():
    "an enumeration whose imported base needs a keyword"
    return list(Latin), Latin("b"), Latin.alphabet


def metaclass_needs_a_keyword():
    "an imported metaclass that needs a keyword"
    return Rows().get(), MoreRows().get(), type(Rows).__name__


def metaclass_registers():
    "an imported metaclass that registers by an attribute"
    return plugins.NamedMeta.known, ByMeta().other


def metaclass_needs_a_method():
    "an imported metaclass that needs a method"
    return Running().run(), Running.fields


def metaclass_prepares():
    "an imported metaclass that prepares the body of a class"
    return Ordered().run(), Ordered.order, isinstance(Ordered(), plugins.Ordered), Ordered.__abstractmethods__


def both_need_keywords():
    "a base and a metaclass that both need keywords"
    return High().get()


def makes_classes():
    "a task that makes classes of an imported base"
    class Made(plugins.Parser, extension=".made"):
        pass

    return plugins.Parser.known[".made"] is Made, Json().parse(2)


def gives_instances():
    "results of classes with imported bases"
    return Data(5), Latin.B, vars(Running())


if __name__ == "__main__":
    backends.run(globals())
