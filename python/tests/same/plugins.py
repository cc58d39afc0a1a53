"""Bases and metaclasses that `classes` imports: with keywords, with checks of attributes, and with a registry."""

import abc
import enum
import typing

T = typing.TypeVar("T")


class Parser:
    known = {}

    def __init_subclass__(cls, *, extension):
        Parser.known[extension] = cls


class Named:
    known = {}

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        cls.number = len(Named.known)
        Named.known[cls.name.upper()] = cls


class Wrapping:
    def __init_subclass__(cls):
        run = cls.run
        cls.run = lambda self, x: ("wrapped", run(self, x))


class Tagged:
    def __init_subclass__(cls, tag="none", **keywords):
        super().__init_subclass__(**keywords)
        cls.tag = tag


class Box(typing.Generic[T]):
    def __init_subclass__(cls, *, item, **keywords):
        super().__init_subclass__(**keywords)
        cls.item = item


class Letters(enum.Enum):
    def __init_subclass__(cls, *, alphabet):
        cls.alphabet = alphabet


class TableMeta(type):
    def __new__(mcs, name, bases, body, *, table):
        made = super().__new__(mcs, name, bases, body)
        made.table = table
        return made

    def __init__(cls, name, bases, body, *, table):
        super().__init__(name, bases, body)


class Table(metaclass=TableMeta, table=""):
    pass


class NamedMeta(type):
    known = {}

    def __new__(mcs, name, bases, body):
        if bases:
            NamedMeta.known[body["name"]] = name
        return super().__new__(mcs, name, bases, body)


class NamedByMeta(metaclass=NamedMeta):
    pass


class RunningMeta(type):
    def __init__(cls, name, bases, body):
        if bases and "run" not in body:
            raise TypeError("needs a method run")
        cls.fields = [name for name in body if not name.startswith("_")]


class Running(metaclass=RunningMeta):
    pass


class _Body(dict):
    def __init__(self):
        self.order = []

    def __setitem__(self, name, value):
        self.order.append(name)
        super().__setitem__(name, value)


class OrderedMeta(abc.ABCMeta):
    @classmethod
    def __prepare__(mcs, name, bases, **keywords):
        return _Body()

    def __new__(mcs, name, bases, body, **keywords):
        made = super().__new__(mcs, name, bases, dict(body), **keywords)
        made.order = [name for name in body.order if not name.startswith("_")]
        return made


class Ordered(metaclass=OrderedMeta):
    @abc.abstractmethod
    def run(self): ...


class LevelMeta(type):
    def __new__(mcs, name, bases, body, *, level, **keywords):
        return super().__new__(mcs, name, bases, body, **keywords)

    def __init__(cls, name, bases, body, *, level, **keywords):
        super().__init__(name, bases, body)
        cls.level = level


class Level(metaclass=LevelMeta, level=0):
    def __init_subclass__(cls, *, kind, **keywords):
        super().__init_subclass__(**keywords)
        cls.kind = kind
