"""Programs that change, between two tasks, which objects globals have in common: in place, and by other objects that are
equal or lie where an earlier one was."""

import collections
import contextlib
import functools
import os
import random
import types

import backends


class Box:
    def __init__(self, held):
        self.held = held


class Slots:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


class Kind:
    held = other = None


def attributes():
    return attributes.held is attributes.other, Kind.held is A, Kind.held is Kind.other


A = B = C = None


def names():
    """The programs, by the backends that they run on besides arenite."""
    for name in dict.fromkeys(("attributes", *NAMES)):
        yield f"joins: {name}", ["fork"]


def read():
    """What the globals have in common: whether a change of what one holds is one of the others."""
    before = list(map(size, (A, B, C)))
    innermost(A).append(1)
    after = list(map(size, (A, B, C)))
    innermost(A).pop()
    return before, after, B is A, inner(B) is inner(A), inner(C) is A, inner(C) is inner(B)


def inner(value):
    if isinstance(value, (Box, Slots, types.SimpleNamespace)):
        return value.held
    if isinstance(value, dict):
        return next(iter(value.values()))
    return value[0] if isinstance(value, (list, tuple, collections.deque)) and len(value) else None


def size(value):
    return None if value is None else len(innermost(value))


def is_last(value):
    return isinstance(value, list) and all(isinstance(one, int) for one in value)


def innermost(value):
    while not is_last(value):
        value = inner(value)
    return value


def put(value, held):
    """Lets an object hold another one."""
    if isinstance(value, dict):
        value[next(iter(value))] = held
    elif isinstance(value, (list, collections.deque)):
        value[0] = held
    else:
        value.held = held


class OfDict(dict):
    pass


class OfList(list):
    pass


AROUND = {
    "list": lambda held: [held],
    "dict": lambda held: {"held": held},
    "ordered dict": lambda held: collections.OrderedDict(held=held),
    "deque": lambda held: collections.deque([held]),
    "object": Box,
    "own dict": lambda held: OfDict(held=held),
    "own list": lambda held: OfList([held]),
    "slots": Slots,
    "namespace": lambda held: types.SimpleNamespace(held=held),
    "object in a list": lambda held: [Box(held)],
    "list in an object": lambda held: Box([held]),
}


def in_place(one, two):
    """Programs whose globals are containers of two kinds."""
    global A, B, C
    shared = [1]
    A, B, C = AROUND[one](shared), AROUND[two](shared), AROUND[one](AROUND[two]([1]))
    yield
    last(B, [1])
    yield
    last(B, shared)
    put(C, B)
    yield
    last(A, [1])
    yield
    put(C, AROUND[two](inner(A)))
    yield


def last(value, held):
    """Lets the innermost container hold another object."""
    while not is_last(inner(value)):
        value = inner(value)
    put(value, held)


def replaced(one, two):
    global A, B, C
    shared = [1]
    A, B, C = AROUND[one](shared), AROUND[two]([1]), None
    yield
    B = AROUND[two](shared)
    yield
    B = AROUND[two]([1])
    C = AROUND[one](A)
    yield
    A = AROUND[one]([1])
    yield
    B = A
    yield


def at_the_same_place(one, two):
    """Programs that free a global, and make another one at its address."""
    global A, B, C
    shared, C = [1], None
    A, B = AROUND[one](shared), AROUND[two]([1])
    yield
    place, B, others = id(B), None, []
    for _ in range(20_000):
        others.append(AROUND[two](shared))
        if id(others[-1]) == place:
            break
    B = others.pop()
    yield


def of_attributes():
    global A
    A = [1]
    attributes.held, attributes.other = ([2],) * 2
    Kind.held = Kind.other = A
    yield
    attributes.other, Kind.other = [2], [1]
    yield
    attributes.other, Kind.held = attributes.held, [1]
    yield
    Kind.held, Kind.other = A, attributes.held
    yield
    A = Kind.held = attributes.held
    yield


CASES = min(backends.CASES, 80)
PROGRAMS = {
    **{
        f"{how.__name__}: {one}, {two}": (read, functools.partial(how, one, two))
        for how in (in_place, replaced, at_the_same_place)
        for one in AROUND
        for two in AROUND
    },
    "attributes": (attributes, of_attributes),
}
NAMES = random.Random(os.environ.get("ARENITE_SEED", "")).sample(list(PROGRAMS), CASES - 1)


def programs(which):
    with backends.executor(which) as ex:
        for name, _ in backends.drawn(names()):
            task, steps = PROGRAMS[name.removeprefix("joins: ")]
            yield name, [backends.outcome(functools.partial(fresh, which, ex, task)) for _ in steps()]


def fresh(which, ex, task):
    """What a task gives that has what the program has now."""
    with contextlib.nullcontext(ex) if which == "arenite" else backends.executor(which) as ex:
        return ex.submit(task).result()


if __name__ == "__main__":
    backends.main(programs)
