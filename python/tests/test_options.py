"""Each option, in every kind of worker. The names come from the signatures, so a new option needs a sample here."""

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
#: The same for the options of executors.
OF_EXECUTORS = {
    "max_workers": ["2"],
    "spares": ["1"],
    "initializer": ["abs, initargs=(1,)"],
    "initargs": ["()"],
    "memory_limit": ["'1GiB'"],
    "max_arena_per_worker": ["0.5", "'64MiB'"],
    "capacity": ["'256MiB'"],
    "preload": ["['json']"],
    "start": ["'spawn'"],
    "main": ["False"],
    "recycle_after": ["1"],
    "recycle_above": ["'1GiB'"],
    "sandbox": ["'strict'"],
    "lanes": ["2"],
    "writable": ["None", "'copy'"],
    "arrays": ["'shared'"],
    "cancel_running": ["False"],
    "output": ["None", "'plain'"],
    "logging": ["None", "'auto'"],
    "label": ["'mine'"],
    "env": ["{'MINE': '1'}"],
    "threads": ["1"],
    "python": ["sys.executable"],
    "trace": ["folder + '/trace'"],
    "report": ["folder + '/report'"],
    "seed": ["7"],
    "start_timeout": ["60"],
    "max_tasks_per_child": ["1"],
    "mp_context": ["multiprocessing.get_context('spawn')"],
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


def _check(kind, options):
    """Runs the program with each value of each option that does not contradict the kind of worker."""
    own = {"max_workers": 1, **KINDS[kind]}
    texts = [f"dict({name}={value})" for name in options if name not in KINDS[kind] for value in options[name]]
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
    names = [name for name in inspect.signature(arenite.Executor).parameters if name != "self"]
    assert sorted(names) == sorted(OF_EXECUTORS)
    _check(kind, OF_EXECUTORS)
