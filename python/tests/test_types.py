"""Types: the package is checked as `mypy --strict` does, its stubs are compared with what runs, and signatures of tasks
reach the user's code."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import arenite
import harness
import pytest

pytest.importorskip("mypy")
pytest.importorskip("numpy")

CONFIG = Path(__file__).parents[1] / "pyproject.toml"

#: What `stubtest` cannot see.
ALLOWED = """
# Made of a slot; visible from 3.12 on.
arenite._arenite.Buffer.__buffer__
arenite._arenite.PrivateBuffer.__buffer__
# Classes that are made when they are first needed.
arenite._core.out_of_band.Arena
arenite._core.pickling.*
# Functions with a cache, which hides their parameters.
arenite._core.codes._names_in_text
arenite._core.start._is_guarded
# Of libraries without types.
arenite.integrations.dask.Worker
arenite.integrations.joblib.AreniteBackend
arenite.joblib.AreniteBackend
# Subclasses of dict and tuple with attributes, which have another layout than these.
arenite.loader.layout.Batch
arenite.loader.layout.BatchTuple
# An alias of Literal, which stubtest takes for a union.
arenite.loader.faults.OnError
"""

#: A user's program. Lines that end in `# error: CODE` have to be refused by mypy with that code, and by pyright; all
#: others have to be accepted.
USE = '''
from collections import Counter
from collections.abc import Iterator
from typing import Any, assert_type

import arenite
import numpy as np
from numpy.typing import NDArray


def resize(photo: NDArray[np.uint8], width: int, *, quality: float = 0.9) -> NDArray[np.uint8]:
    return photo


def fill(row: NDArray[np.float64], value: float) -> None:
    row[:] = value


class Model:
    def __init__(self, path: str, *, threads: int = 1) -> None:
        self.path = path

    def predict(self, row: NDArray[np.float64], scale: float = 1.0) -> NDArray[np.float32]:
        return (scale * row).astype(np.float32)

    def __call__(self, number: int) -> str:
        return f"{self.path} {number}"


def load(path: str) -> Model:
    return Model(path)


def predict(model: arenite.Actor[Model], row: NDArray[np.float64]) -> NDArray[np.float32]:
    return model[Model.predict](row).result()


def count(batch: Any) -> int:
    return int(batch.num_rows)


def price(batch: Any, tax: float) -> dict[str, list[float]]:
    return {"gross": [1 + tax]}


@arenite.isolated(deadline=5, memory_limit="1GiB", sandbox="strict", preload=["numpy"])
def halves(values: list[int], *, more: int = 0) -> list[float]:
    return [value / 2 + more for value in values]


async def later() -> list[float]:
    await halves.aio(["1"])  # error: list-item
    return await halves.aio([1], more=2)


class Page:
    @arenite.isolated
    def words(self, least: int = 0) -> list[str]:
        return []


assert_type(Page().words(least=2), list[str])
assert_type(Page.words(Page()), list[str])
Page().words("2")  # error: arg-type
assert_type(halves([1]), list[float])
assert_type(halves.report([1]).ok, bool)
assert_type(arenite.isolated(halves.__wrapped__)(), Any)
halves(1)  # error: arg-type
halves([1], least=1)  # error: call-arg

photo = np.zeros((2, 2), np.uint8)
with arenite.Executor(max_workers=2, memory_limit="1GiB", preload=["numpy"]) as ex:
    assert_type(ex, arenite.Executor)
    assert_type(ex.submit(resize, photo, 2), arenite.Future[NDArray[np.uint8]])
    assert_type(ex.submit(resize, photo, width=2, quality=0.5).result(timeout=1), NDArray[np.uint8])
    ex.submit(resize, photo)  # error: arg-type
    future = ex.submit(resize, photo, 2)
    assert_type(ex.submit(resize, future, ex.submit(len, "ab")), arenite.Future[NDArray[np.uint8]])
    ex.submit(resize, ex.submit(len, "ab"), 2)  # error: arg-type
    ex.submit(resize, photo, "2")  # error: arg-type
    ex.submit(resize, photo, 2, quality="high")  # error: arg-type
    ex.submit(resize, photo, 2, size=3)  # error: call-arg

    careful = ex.options(deadline=2, retries=1, backoff=(0.1, 5.0), priority=1, label="thumbnails")
    assert_type(careful.submit(resize, photo, 2), arenite.Future[NDArray[np.uint8]])
    careful.submit(resize, 2)  # error: arg-type
    ex.options(timeout=2)  # error: call-arg

    assert_type(ex.map(len, ["a", "bc"]), Iterator[int])
    assert_type(careful.map(len, ["a", "bc"], timeout=1.0), Iterator[int])
    assert_type(list(ex.map(float, [1, 2], chunksize=2, buffersize=4)), list[float])
    ex.map(len, 3)  # error: arg-type
    ex.map(3, [3])  # error: arg-type

    assert_type(ex.share(resize(photo, 2)), NDArray[np.uint8])
    assert_type(ex.share({"a": [1]}), dict[str, list[int]])
    out = ex.zeros((4, 100))
    assert_type(out, NDArray[np.float64])
    assert_type(ex.empty(3, np.uint8), NDArray[np.uint8])
    assert_type(ex.full(3, 1, np.dtype(np.int16)), NDArray[np.int16])
    assert_type(ex.array([1, 2], dtype="u1"), NDArray[Any])
    assert_type(arenite.mut(out), NDArray[np.float64])
    ex.submit(fill, arenite.mut(photo), 0.5)  # error: arg-type
    ex.options(retries=2, retry_errors=(ConnectionError, TimeoutError))
    ex.options(retry_errors="ConnectionError")  # error: arg-type
    assert_type(arenite.worker(), arenite.Worker | None)
    assert_type(ex.submit(fill, arenite.mut(out[0]), 0.5), arenite.Future[None])
    assert_type(ex.stats().bytes_copied, int)
    assert_type([worker.pid for worker in ex.stats().workers], list[int])

    with ex.scope() as scope:
        assert_type(scope.submit(resize, photo, 2), arenite.Future[NDArray[np.uint8]])
        scope.submit(resize, photo)  # error: arg-type
    counter = ex.actor(dict, a=1)
    assert_type(counter.get("a"), arenite.Future[Any])
    model = ex.actor(Model, "weights", threads=2)
    assert_type(model, arenite.Actor[Model])
    assert_type(model[Model.predict](out, scale=2), arenite.Future[NDArray[np.float32]])
    assert_type(model.options(deadline=1)[Model.predict](out), arenite.Future[NDArray[np.float32]])
    assert_type(model(3), arenite.Future[str])
    assert_type(ex.actor(load, "weights"), arenite.Actor[Model])
    assert_type(predict(model, out), NDArray[np.float32])
    model[Model.predict](3)  # error: arg-type
    model[Model.predict](out, size=2)  # error: call-arg
    model[str.upper]  # error: index
    model("3")  # error: arg-type
    ex.actor(Model)  # error: call-arg
    ex.actor(Model, 3)  # error: arg-type
    with ex.actor(Counter, "abc") as letters:
        assert_type(letters, arenite.Actor[Counter[str]])
        assert_type(letters[Counter.total](), arenite.Future[int])
    ex.options(limit=arenite.Limiter(at_once=1, per_second=0.5))
    ex.options(limit=1)  # error: arg-type

    failed = ex.submit(len, "abc").exception()
    assert_type(failed, BaseException | None)
    if isinstance(failed, arenite.WorkerDied):
        assert_type(failed.signal, int | None)
        assert_type(failed.last_words, list[str])
    elif isinstance(failed, arenite.DeadlineExceeded):
        assert_type(failed.deadline, float | None)
    elif isinstance(failed, arenite.ArenaFull):
        assert_type(failed.requested, int)

with arenite.Pool(2, maxtasksperchild=3, memory_limit="1GiB") as pool:
    assert_type(pool.apply(len, ("abc",)), int)
    assert_type(pool.map(len, ["abc"]), list[int])
    assert_type(pool.starmap_async(resize, [(photo, 2)]).get(), list[NDArray[np.uint8]])
    assert_type(next(pool.imap_unordered(len, ["abc"])), int)
    assert_type(pool.imap(len, ["abc"]).next(timeout=1.0), int)
    pool.map(3, [3])  # error: arg-type

scan = arenite.scan_csv("data")
assert_type(scan.map_batches(count), Iterator[int])
assert_type(scan.map_batches(lambda batch: "text"), Iterator[str])
scan.map_batches(price, 0.25)
scan.map_batches(price, "0.25")  # error: arg-type
scan.map_batches(count, 3)  # error: arg-type

arenite.Executor(worker=2)  # error: arg-type
arenite.Executor(writable="yes")  # error: arg-type
arenite.nothing  # error: attr-defined
assert_type(arenite.__version__, str)
assert_type(arenite.empty((2, 3), np.float32), NDArray[np.float32])
arenite.Pool(2, memory="1GiB")  # error: call-arg
'''


def run(folder, *command):
    """Runs a tool of mypy on what is installed, not on what is in the working directory."""
    with harness.waiting(f"{' '.join(command[:2])} to end"):
        ran = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(arenite.__file__).parents[1])},
        )
    return ran.returncode, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache, so that the types of numpy are read once."""
    return str(tmp_path_factory.mktemp("mypy"))


@pytest.mark.patience(300)
def test_the_package_passes_mypy(tmp_path, cache):
    code, text = run(tmp_path, "mypy", "--config-file", str(CONFIG), "--cache-dir", cache, "-p", "arenite")
    assert code == 0, text


def refused():
    """Lines of the user's program that have to be refused, with the codes of mypy."""
    lines = enumerate(USE.splitlines(), 1)
    return {(number, code) for number, line in lines for code in line.partition("# error: ")[2].split(", ") if code}


@pytest.mark.patience(300)
def test_types_reach_the_user(tmp_path, cache):
    (tmp_path / "use.py").write_text(USE)
    _, text = run(tmp_path, "mypy", "--strict", "--cache-dir", cache, "--hide-error-context", "use.py")
    found = {(int(number), code) for number, code in re.findall(r"^use\.py:(\d+): error: .*\[([\w-]+)\]$", text, re.M)}
    assert found == refused(), text


@pytest.mark.patience(300)
def test_types_reach_the_user_of_pyright(tmp_path):
    pytest.importorskip("basedpyright")
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"include": ["use.py"], "typeCheckingMode": "strict"}))
    _, text = run(tmp_path, "basedpyright", "--pythonpath", sys.executable, "--outputjson")
    reports = json.loads(text[text.index("{"):])["generalDiagnostics"]
    # What pyarrow says about its types is no matter of ours.
    found = {one["range"]["start"]["line"] + 1: one for one in reports if "nknown" not in one["rule"]}
    assert found.keys() == {number for number, _ in refused()}, list(found.values())


@pytest.mark.patience(300)
def test_stubs_are_what_runs(tmp_path):
    for optional in ("joblib", "distributed"):
        pytest.importorskip(optional)
    (tmp_path / "allowed").write_text(ALLOWED)
    code, text = run(
        tmp_path, "mypy.stubtest", "--mypy-config-file", str(CONFIG), "--allowlist", "allowed",
        "--ignore-unused-allowlist", "arenite",
    )  # fmt: skip
    assert code == 0, text


def test_names_of_the_package():
    assert sorted(arenite._HOMES) == sorted(arenite.__all__)
    for name in arenite.__all__:
        assert getattr(arenite, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        arenite.nothing  # noqa: B018
    assert (Path(arenite.__file__).parent / "py.typed").exists()
    assert (Path(arenite.__file__).parent / "_arenite.pyi").exists()
