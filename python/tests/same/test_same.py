"""Programs give on arenite what they give on the pools of the standard library, and on loky.

Each script of this folder has many programs, which one process runs on one of these. A run of the tests draws some of
them.
"""

import collections
import functools
import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import backends  # noqa: E402

SCRIPTS = {
    **{"broken": (), "callables": (), "changes": ("numpy",), "classes": (), "compiled": ("numba",)},
    **{"edits": ("numpy",), "identity": (), "inputs": (), "joins": (), "kinds": (), "linked": (), "lookups": ()},
    **{"modules": (), "odd": (), "settings": (), "shared": (), "sharing": ("numpy",), "starts": (), "texts": ()},
    **{"together": ("numpy",), "unused": ()},
    **{"values": ("numpy", "pandas"), "views": ("numpy",), "written": ("numpy",)},
}
if sys.version_info >= (3, 12):
    SCRIPTS["generics"] = ()
#: Seconds for all programs of a script.
PATIENCE = 300


def _groups():
    """Scripts, other pools and groups of programs, which have the first part of their names in common."""
    found = collections.defaultdict(list)
    for script, needs in SCRIPTS.items():
        if all(importlib.util.find_spec(name) for name in needs):
            for name, others in backends.drawn(importlib.import_module(script).names()):
                for other in others:
                    found[script, other, name.partition(":")[0]].append(name)
    return found


GROUPS = _groups()


@functools.cache
def _runs():
    """A process for each script and backend that the tests need. As many run at a time as there are cores."""
    needed = {(script, backend) for script, other, _ in GROUPS for backend in (other, "arenite")}
    if backends.loky() is None:
        needed = {(script, backend) for script, backend in needed if backend != "loky"}
    threads = ThreadPoolExecutor(os.cpu_count())
    runs = {run: threads.submit(_run, *run) for run in sorted(needed)}
    threads.shutdown(wait=False)
    return runs


def _run(script, backend):
    return subprocess.run(
        [sys.executable, HERE / f"{script}.py", backend], capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.fixture(scope="module", autouse=True)
def all_runs():
    """The processes of all runs come and go before the tests look for processes that they leave."""
    for run in _runs().values():
        with harness.waiting("the programs of a script on a backend"):
            run.exception()


def outcomes(script, backend):
    """What all programs of a script give on a backend."""
    ran = _runs()[script, backend].result()
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.patience(PATIENCE)
@pytest.mark.parametrize("script, other, names", [pytest.param(*one[:2], GROUPS[one], id="-".join(one)) for one in GROUPS])
def test_programs_give_the_same(script, other, names):
    if other == "loky" and backends.loky() is None:
        pytest.skip("loky is not installed")
    ours, theirs = outcomes(script, "arenite"), outcomes(script, other)
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}


def test_there_are_many_programs():
    programs = {name for script, backend in _runs() for name in outcomes(script, backend)}
    assert len(programs) >= min(backends.CASES, 200)
