"""Programs give on arenite what they give on the pools of the standard library, and on loky.

Each script of this folder has many programs, which one process runs on one of these.
"""

import collections
import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import harness
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import backends  # noqa: E402

SCRIPTS = {"callables": (), "values": ("numpy", "pandas")}
#: Seconds for all programs of a script.
PATIENCE = 300


def _groups():
    """Scripts, other pools and groups of programs, which have the first part of their names in common."""
    found = collections.defaultdict(list)
    for script, needs in SCRIPTS.items():
        if all(importlib.util.find_spec(name) for name in needs):
            for name, others in importlib.import_module(script).names():
                for other in others:
                    found[script, other, name.partition(":")[0]].append(name)
    return [pytest.param(*group[:2], names, id="-".join(group)) for group, names in found.items()]


@functools.cache
def outcomes(script, backend):
    """What all programs of a script give on a backend."""
    with harness.waiting(f"the programs of {script}.py on {backend}"):
        ran = subprocess.run(
            [sys.executable, HERE / f"{script}.py", backend],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.patience(PATIENCE)
@pytest.mark.parametrize("script, other, names", _groups())
def test_programs_give_the_same(script, other, names):
    if other == "loky" and backends.loky() is None:
        pytest.skip("loky is not installed")
    ours, theirs = outcomes(script, "arenite"), outcomes(script, other)
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}


def test_there_are_many_programs():
    programs = {name for script in SCRIPTS for name in outcomes(script, "arenite")}
    assert len(programs) >= 200
