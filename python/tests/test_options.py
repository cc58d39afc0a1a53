"""Each option, in a drawn kind of worker, at night in every one. The names come from the signatures, so a new option
needs a sample here.
"""

import dataclasses
import inspect

import arenite
import harness
import pytest

#: Values of the options of tasks, for which a task gives what it gives without them.
OF_TASKS = {
    "deadline": ["60"],
    "retries": ["2"],
    "retry_errors": ["True", "ConnectionError", "(ConnectionError, KeyError)"],
    "backoff": ["(0, 0.001)"],
    "priority": ["1", "-1"],
    "label": ["'thumbnails'"],
    "limit": ["arenite.Limiter(at_once=1)"],
}
#: The same for the settings of executors, and for their keywords.
SETTINGS = {
    "main": ["False"],
    "spares": ["1"],
    "max_arena_per_worker": ["0.5", "'64MiB'"],
    "recycle_above": ["'1GiB'"],
    "cancel_running": ["False"],
    "logging": ["None", "'auto'"],
    "label": ["'mine'"],
    "env": ["{'MINE': '1'}"],
    "python": ["sys.executable"],
    "trace": ["folder + '/trace'"],
    "report": ["folder + '/report'"],
    "start_timeout": ["60"],
}
OF_EXECUTORS = {
    "max_workers": ["2"],
    "initializer": ["abs, initargs=(1,)"],
    "initargs": ["()"],
    "memory_limit": ["'1GiB'"],
    "capacity": ["'256MiB'"],
    "preload": ["['json']"],
    "start": ["'spawn'"],
    "max_tasks_per_child": ["1"],
    "sandbox": ["'strict'"],
    "lanes": ["2"],
    "writable": ["None", "'copy'"],
    "output": ["None", "'plain'"],
    "threads": ["1"],
    "seed": ["7"],
    "mp_context": ["multiprocessing.get_context('spawn')"],
    "settings": [f"arenite.Settings({name}={value})" for name, values in SETTINGS.items() for value in values],
}
KINDS = {
    "sandbox": {"sandbox": "strict"},
    "template": {"start": "forkserver"},
    "both": {"sandbox": "strict", "start": "forkserver"},
}
#: What a task with options gives: a value, calls of a map, and an exception that no option retries.
PROGRAM = """
import multiprocessing, os, sys, tempfile
import numpy
import arenite

def fail(first, *_):
    raise ValueError(first)

def given(call):
    try:
        value = call()
        return value.tolist() if isinstance(value, numpy.ndarray) else value
    except Exception as error:
        return type(error).__name__, str(error)

def outcomes(tasks):
    numbers = numpy.arange(3)
    calls = [(abs, -3), (fail, 7), (numpy.negative, numbers), (max, [1, 2])]
    yield [given(lambda: tasks.submit(*call).result()) for call in calls]
    yield [given(lambda: list(tasks.map(abs, items))) for items in ([-1, -2], range(-30, 0), [-1j, "a"])]
    yield given(lambda: list(tasks.map(abs, [-1, -2, -3], chunksize=2)))

folder, own = tempfile.mkdtemp(), {kind}
with arenite.Executor(**own) as ex:
    expected = list(outcomes(ex))
print(expected)
for text in {options}:
    options = eval(text)
    with arenite.Executor(**{**own, **options}) if {of_executors} else arenite.Executor(**own) as ex:
        found = list(outcomes(ex if {of_executors} else ex.options(**options)))
    if found != expected:
        print(text, found)
"""


def kinds_of(name, value):
    """The kinds of worker with which a value of an option is tried."""
    return harness.drawn((kind for kind in KINDS if name not in KINDS[kind]) or [None], f"{name} {value}")


def _check(kind, options):
    """Runs the program with each value of each option that does not contradict the kind of worker."""
    own = {"max_workers": 1, **KINDS[kind]}
    texts = [f"dict({name}={value})" for name in options for value in options[name] if kind in kinds_of(name, value)]
    code = PROGRAM.replace("{kind}", repr(own)).replace("{options}", repr(texts))
    lines = harness.script(code.replace("{of_executors}", repr(options is OF_EXECUTORS))).ok().out.splitlines()
    assert lines[0].startswith("[[3, ('ValueError', '7'), [0, -1, -2], 2], [[1, 2], ["), lines[0]
    assert lines[1:] == []


@pytest.mark.patience(300)
@pytest.mark.parametrize("kind", KINDS)
def test_options_of_tasks(kind):
    names = [name for name in inspect.signature(arenite.Executor.options).parameters if name != "self"]
    assert names == list(OF_TASKS)
    _check(kind, OF_TASKS)


@pytest.mark.patience(300)
@pytest.mark.parametrize("kind", KINDS)
def test_options_of_executors(kind):
    names = [name for name in inspect.signature(arenite.Executor).parameters if name not in ("self", "others")]
    assert sorted(names) == sorted(OF_EXECUTORS)
    assert [field.name for field in dataclasses.fields(arenite.Settings)] == list(SETTINGS)
    _check(kind, OF_EXECUTORS)
