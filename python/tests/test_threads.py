"""The threads of libraries in workers: each worker has its share of the cores."""

import json
import os
import subprocess
import sys

import arenite
import pytest

CORES = len(os.sched_getaffinity(0))
LIBRARIES = ("cv2", "polars", "threadpoolctl")
#: Variables of libraries that the tests need not have.
NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")


def counts():
    """The numbers of threads that libraries say to use, by library."""
    import cv2
    import numpy as np
    import polars
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    found = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    return {"cv2": cv2.getNumThreads(), "polars": polars.thread_pool_size(), **found}


def variables():
    return [os.environ.get(name) for name in NAMES]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in list(os.environ):
        if "THREADS" in name:
            monkeypatch.delenv(name)


def elsewhere():
    """The numbers in a process of its own."""
    code = f"import json, {__name__} as this; print(json.dumps(this.counts()))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(__file__), capture_output=True, text=True)
    return json.loads(ran.stdout)


@pytest.mark.parametrize("options", [{}, {"start": "forkserver"}, {"start": "forkserver", "preload": ["cv2"]}], ids=str)
@pytest.mark.parametrize("workers, threads, expected", [(CORES, None, 1), (1, None, CORES), (1, 3, 3), (CORES, 1, 1)])
def test_libraries_use_the_threads_of_their_worker(options, workers, threads, expected):
    for library in LIBRARIES:
        pytest.importorskip(library)
    with arenite.Executor(workers, threads=threads, **options) as ex:
        # BLAS starts at most a thread for each core.
        for library, count in ex.submit(counts).result().items():
            assert count == (min(expected, CORES) if "/" in library else expected), library
        assert ex.submit(variables).result() == [str(expected)] * len(NAMES)


@pytest.mark.parametrize("threads", [0, "all"])
def test_libraries_are_left_alone(threads):
    for library in LIBRARIES:
        pytest.importorskip(library)
    with arenite.Executor(CORES, threads=threads) as ex:
        assert ex.submit(counts).result() == elsewhere()
        assert ex.submit(variables).result() == [None] * len(NAMES)


def test_what_the_user_has_set_wins(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    def given(**options):
        with arenite.Executor(CORES, **options) as ex:
            return ex.submit(variables).result()[:2]

    assert given() == ["7", "1"]
    assert given(threads="all") == ["7", None]
    assert given(threads=2) == ["2", "2"]
    assert given(threads=2, settings=arenite.Settings(env={"OMP_NUM_THREADS": "5"})) == ["5", "2"]


def test_threads_of_opencv_that_the_program_has_set():
    cv2 = pytest.importorskip("cv2")
    before = cv2.getNumThreads()

    def given(**options):
        with arenite.Executor(1, **options) as ex:
            return ex.submit(cv2.getNumThreads).result()

    cv2.setNumThreads(before + 2)
    try:
        assert (given(), given(threads=1), given(start="forkserver")) == (before + 2, 1, before + 2)
    finally:
        cv2.setNumThreads(before)


def test_wrong_numbers():
    for threads, kind in ((-1, ValueError), (1.5, TypeError), ("some", TypeError)):
        with pytest.raises(kind, match="threads must be"):
            arenite.Executor(1, threads=threads)
    with pytest.raises(ValueError, match="libraries start no threads in a sandbox"):
        arenite.Executor(1, threads=2, sandbox="strict")
