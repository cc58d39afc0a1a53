"""What the program reads of a sandboxed worker: any pickle costs no more than its limits.

Children read them, with little memory, stack and time. `ARENITE_CASES` sets how many, and `ARENITE_FUZZ_SEED` where to
start.
"""

import os
import random
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness
import plain_pickles
import pytest

CASES = int(os.environ.get("ARENITE_CASES", "20000"))
SEED = os.environ.get("ARENITE_FUZZ_SEED") or str(random.SystemRandom().randrange(1 << 32))
#: Cases of one child, and the seconds of a processor that it has for each of them.
BATCH = 2500
SECONDS = 0.02


def bounded():
    # The stack of the main thread is made by `exec`.
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))
    seconds = 10 + int(BATCH * SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(first, folder):
    last = min(first + BATCH, CASES)
    mark = folder / f"{first}"
    mark.write_bytes(bytes(8))
    command = [sys.executable, plain_pickles.__file__, SEED, str(first), str(last), mark]
    child = subprocess.run(
        command, preexec_fn=bounded, capture_output=True, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    )
    number = int.from_bytes(mark.read_bytes(), "little")
    data = plain_pickles.generate(SEED, number)
    assert child.returncode == 0, f"case {number} of seed {SEED}: {child.returncode}, {data!r:.2000}\n{child.stderr}"
    return int(child.stdout)


@pytest.mark.patience(180)
def test_pickles_that_fit_together(tmp_path):
    print(f"ARENITE_FUZZ_SEED={SEED}")
    values = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first, child in [(first, pool.submit(run, first, tmp_path)) for first in range(0, CASES, BATCH)]:
            with harness.waiting(f"the child that reads pickles from number {first} of seed {SEED} on"):
                values += child.result()
    # Some of each: the limits do not refuse what is harmless.
    print(f"{values} of {CASES} pickles were values")
    assert CASES // 10 < values < CASES
