"""Programs give on arenite what they give on the pools of the standard library, and on loky.

Each script of this folder has programs with titles, which one process runs on one of these. Arenite runs them twice:
with the main file run in workers, and with what tasks name sent to them. Where two pools of the standard library
give the same, a run draws one of them; at night there are both.
"""

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
import promises  # noqa: E402

BOTH, FORK = ("fork", "spawn"), ("fork",)
#: Scripts, with the pools that their programs are compared with, and the packages that they need.
SCRIPTS = {
    **{name: (BOTH, ()) for name in ("classes", "lookups", "modules", "settings", "starts", "texts")},
    **{"calls": (BOTH, ()), "objects": (BOTH, ("numpy",)), "kinds": (BOTH, ("numpy", "pandas"))},
    **{"arrays": (BOTH, ("numpy",)), "compiled": (BOTH, ("numba",)), "local": (("loky",), ())},
    **{name: (FORK, ("numpy",)) for name in ("changes", "differences", "inputs")},
    **{name: (FORK, ()) for name in ("anything", "shared", "unused")},
}
if sys.version_info >= (3, 12):
    SCRIPTS["generics"] = BOTH, ()
SCRIPTS = {
    name: harness.drawn(others, name)
    for name, (others, needs) in SCRIPTS.items()
    if all(map(importlib.util.find_spec, needs))
}
PAIRS = [(script, other) for script, others in SCRIPTS.items() for other in others if script != "differences"]
#: Seconds for all programs of a script.
PATIENCE = 300


@functools.cache
def _runs():
    """A process for each script and backend. As many run at a time as there are cores."""
    needed = [(script, backend) for script, others in SCRIPTS.items() for backend in (*backends.OURS, *others)]
    threads = ThreadPoolExecutor(os.cpu_count())
    runs = {run: threads.submit(_run, *run) for run in needed if run[1] != "loky" or backends.loky()}
    threads.shutdown(wait=False)
    return runs


def _run(script, backend):
    command = [sys.executable, HERE / f"{script}.py", backend]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module", autouse=True)
def all_runs():
    """The processes of all runs come and go before the tests look for processes that they leave."""
    for run in _runs().values():
        with harness.waiting("the programs of a script on a backend"):
            run.exception()


def outcomes(script, backend):
    """What the programs of a script give on a backend, by their titles."""
    ran = _runs()[script, backend].result()
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.patience(PATIENCE)
@pytest.mark.parametrize("ours", backends.OURS)
@pytest.mark.parametrize("script, other", PAIRS)
def test_programs_give_the_same(script, other, ours):
    if other == "loky" and backends.loky() is None:
        pytest.skip("loky is not installed")
    assert outcomes(script, ours) == outcomes(script, other)


def test_intended_differences_are_there():
    """Some are none where workers run the main file."""
    wrong = {title: gives for title, gives in outcomes("differences", "mirrored").items() if not is_all(gives, "True")}
    assert not wrong
    wrong = {title: gives for title, gives in outcomes("differences", "fork").items() if not is_all(gives, "False")}
    assert not wrong


def is_all(gives, truth):
    return set(gives.removeprefix("list[").removesuffix("]").split(", ")) == {f"bool {truth}"}


def test_each_promise_has_a_program_or_a_test():
    programs = [title for script in SCRIPTS for title in outcomes(script, "arenite")]
    assert len(set(programs)) == len(programs) >= 250
    promises.check(programs)
