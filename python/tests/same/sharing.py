"""Programs: objects that globals share in many ways × tasks that use different ones of these globals, in any order."""

import functools
import os
import random

import backends
import numpy

CASES = min(backends.CASES, 60)
SEED = os.environ.get("ARENITE_SEED", "")


class Holder:
    def __init__(self, held):
        self.held = held

    def poke(self, number):
        poke(self.held, number)
        return peek(self.held)


class Slots:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


def poke(value, number):
    """Changes a value, or something in it."""
    if isinstance(value, list) and not (value and isinstance(value[0], HELD)):
        value.append(number)
    elif isinstance(value, (list, tuple)):
        poke(value[number % len(value) if len(value) < LONG else -1], number)
    elif isinstance(value, dict):
        key = number % 3
        if isinstance(first := next(iter(value), None), HOLDERS):
            poke(first, number)
        elif isinstance(value.get("held"), HELD):
            poke(value["held"], number)
        else:
            value[key] = value.get(key, 0) + number
    elif isinstance(value, HOLDERS):
        poke(value.held, number) if isinstance(value.held, HELD) else setattr(value, "held", value.held + number)
    elif isinstance(value, numpy.ndarray):
        value[(0,) * value.ndim] += number
    else:
        value(number)


def peek(value):
    if isinstance(value, (list, tuple)):
        return [peek(one) for one in value[-LONG:]]
    if isinstance(value, dict):
        return sorted((str(peek(key)), peek(one)) for key, one in list(value.items())[-LONG:])
    if isinstance(value, HOLDERS):
        return type(value).__name__, peek(value.held)
    if isinstance(value, numpy.ndarray):
        return value.shape, float(value.sum()), float(value.ravel()[0])
    return value(0) if callable(value) else value


def counters(held):
    """Two functions that share a variable, and an object."""
    count = 0

    def more(number):
        nonlocal count
        count += number
        poke(held, number)
        return count

    def less(number):
        nonlocal count
        count -= number
        return count, peek(held)

    return more, less


def logged(held):
    def decorator(function):
        @functools.wraps(function)
        def call(number):
            poke(held, number)
            return function(number), peek(held)

        return call

    return decorator


CLASS = """
class P?:
    @classmethod
    def set_held(cls, number):
        if number:
            poke(cls.held, number)
        return peek(cls.held)

class C?(P?):
    pass

def d?(number, held=None):
    if number:
        poke(held, number)
    return peek(held)
"""

HOLDERS = (Holder, Slots)
HELD = (list, tuple, dict, *HOLDERS, numpy.ndarray)
#: The length of containers of which only the end is used.
LONG = 5


def base(rng):
    size = rng.choice([6, 60, 6_000, 60_000])
    return rng.choice(
        [
            lambda: [],
            lambda: {},
            lambda: Holder(1),
            lambda: numpy.zeros(size),
            lambda: numpy.asfortranarray(numpy.ones((6, size // 6))),
        ]
    )()


def shared(rng, held):
    """An object that contains another one."""
    made = [
        lambda: held,
        lambda: [held],
        lambda: (held, held),
        lambda: {"held": held},
        lambda: Holder(held),
        lambda: Slots(held),
        lambda: {held if isinstance(held, HOLDERS) else Slots(held): 0},
        lambda: [*map(Holder, range(400 if rng.randrange(8) == 0 else 1)), held],
        lambda: {**{str(number): [] for number in range(400 if rng.randrange(8) == 0 else 1)}, "held": held},
        lambda: Holder(held).poke,
        lambda: functools.partial(Holder.poke, Holder(held)),
        lambda: functools.partial(Holder.poke, Holder([held])),
        lambda: counters(held)[rng.randrange(2)],
    ]
    if isinstance(held, numpy.ndarray):
        made += [lambda: held[::-1], lambda: held.T, lambda: held[: len(held) // 2], lambda: [held[1:], held[:1]]]
    return rng.choice(made)()


def define(case):
    """Creates the globals and the tasks of a program. Returns the names of the tasks."""
    rng = random.Random(f"{SEED} {case}")
    bases = [base(rng) for _ in range(2)]
    pair = counters(bases[0])
    decorator = logged(rng.choice(bases))
    count = rng.randrange(3, 6)
    for number in range(count):
        one = shared(rng, rng.choice(bases))
        if rng.randrange(3) == 0:
            one = shared(rng, one) if isinstance(one, HELD) else one
        globals()[f"g{case}_{number}"] = rng.choice([one, one, one, *pair])
    exec(CLASS.replace("?", str(case)), globals())
    parent, child = globals()[f"P{case}"], globals()[f"C{case}"]
    function = globals()[f"d{case}"]
    parent.held, child.own = (shared(rng, rng.choice(bases)) for _ in range(2))
    function.held = shared(rng, rng.choice(bases))
    function.__defaults__ = (shared(rng, rng.choice(bases)),)
    held = [*(f"g{case}_{number}" for number in range(count))]
    held += [f"P{case}.held", f"C{case}.own", f"d{case}.held", f"d{case}.__defaults__[0]", f"C{case}.held"]
    held += [f"d{case}", f"C{case}.set_held"]
    names = []
    for number in range(5):
        name, one, two = f"t{case}_{number}", rng.choice(held), rng.choice(held)
        # No method, which would call itself without end.
        plain = rng.choice([name for name in held if "set_" not in name])
        body = rng.choice(
            [
                f"poke({one}, number)\n    return peek({two})",
                f"return peek({one})",
                f"return peek({one}), peek({two}), {one} is {two}",
                f"global g{case}_0\n    g{case}_0 = {plain}\n    return peek(g{case}_0), peek({one})",
                f"P{case}.held = {plain}\n    return peek(C{case}.set_held)",
            ]
        )
        exec(f"def {name}(number):\n    {body}\n", globals())
        if rng.randrange(4) == 0:
            globals()[name] = decorator(globals()[name])
        names.append(name)
    return names


TASKS = {case: define(case) for case in range(CASES)}


def names():
    """The programs, by the backends that they run on besides arenite."""
    for case in TASKS:
        yield f"sharing: {case}", ["fork", "spawn"]


def programs(which):
    with backends.executor(which) as ex:
        for case, tasks in TASKS.items():
            rng = random.Random(case)
            calls = [(rng.choice(tasks), rng.randrange(1, 9)) for _ in range(8)]
            yield (
                f"sharing: {case}",
                [backends.outcome(ex.submit(globals()[name], number).result) for name, number in calls],
            )


if __name__ == "__main__":
    backends.main(programs)
