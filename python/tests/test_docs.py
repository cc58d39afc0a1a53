"""The documentation is true: its code runs, and its examples print what they show. (`.ci/links` follows its links.)"""

import contextlib
import doctest
import importlib.util
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import arenite
import harness
import pytest

ROOT = Path(__file__).resolve().parents[2]
#: The pages with code in Python, and how many blocks each has at least.
PAGES = {"docs/python.md": 20, "docs/asyncio.md": 5, "python/README.md": 1, "docs/ten-minutes-python.md": 4}
PAGES |= {f"docs/{name}.md": 1 for name in ["beyond-one-machine", "loader", "tables", "store"]}
MODULES = [
    module.name
    for module in pkgutil.walk_packages(arenite.__path__, "arenite.")
    if not module.name.startswith("arenite.bench") and module.name != "arenite._arenite"
]
#: What the code of a page imports and need not be installed.
NEEDS = {"docs/python.md": ["joblib"], "docs/asyncio.md": ["anyio"], "docs/beyond-one-machine.md": ["distributed"]}
NEEDS |= {"docs/tables.md": ["pandas", "pyarrow"], "docs/store.md": ["pyarrow"]}
#: Modules that import what need not be installed.
OPTIONAL = {"arenite.dask": "distributed", "arenite.joblib": "joblib"}
OPTIONAL |= {name.replace(".", ".integrations.", 1): library for name, library in OPTIONAL.items()}
OPTIONAL |= {name: "pyarrow" for name in MODULES if name.startswith("arenite.tables")}

pytest.importorskip("numpy")


def program(page):
    """The Python blocks of a page as one program, each line where it is on the page."""
    lines, is_code, blocks = [], False, 0
    for line in (ROOT / page).read_text().splitlines():
        if line.startswith("```"):
            is_code = line == "```python"
            blocks += is_code
            line = "#"
        lines.append(line if is_code else "#")
    assert blocks >= PAGES[page], f"{page} has {blocks} blocks of Python"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs_as_a_script(page, tmp_path):
    for package in NEEDS.get(page, ()):
        pytest.importorskip(package)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    needs_store = page == "docs/store.md"
    if needs_store and harness.COMMAND is None:
        pytest.skip("the command is not built: cargo build --release -p arenite-cli")
    with harness.store("--capacity", "64M", env=env) if needs_store else contextlib.nullcontext():
        ran = harness.script(program(page), cwd=ROOT, env=env)
    assert (ran.code, ran.left) == (0, []), f"lines are those of {page}\n{ran}"
    # Dask writes the exceptions of tasks to its log.
    assert "Traceback" not in ran.err or "distributed" in NEEDS.get(page, ()), ran


def test_fragments_for_other_schedulers(tmp_path):
    """The program for Slurm runs as two tasks. Those for Ray and Spark only compile: both need a cluster."""
    pytest.importorskip("PIL")
    page = (ROOT / "docs/beyond-one-machine.md").read_text()
    slurm, *others = re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(others) == 2
    for source in others:
        compile(source, "beyond-one-machine.md", "exec")
    photos = {path.stem for path in (ROOT / "samples").rglob("*.jpg")}
    found = []
    for task in range(2):
        thumbs = tmp_path / str(task)
        thumbs.mkdir()
        env = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2"}
        harness.script(slurm, ROOT / "samples", thumbs, env=env).ok()
        found += [path.stem for path in thumbs.iterdir()]
    assert len(photos) > 1 and sorted(found) == sorted(photos)


RECIPES = re.split(r"^## ", (ROOT / "docs/recipes.md").read_text(), flags=re.MULTILINE)[1:]
NEEDED_BY_RECIPES = {"20 GB CSV": ["pyarrow"], "tqdm over a pool": ["tqdm"]}
NEEDED_BY_RECIPES |= {"A service in FastAPI": ["fastapi", "uvicorn", "httpx"]}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.partition("\n")[0])
def test_a_recipe_is_a_script(recipe):
    for package in NEEDED_BY_RECIPES.get(recipe.partition("\n")[0], ()):
        pytest.importorskip(package)
    [source] = re.findall(r"^```python\n(.*?)^```", recipe, re.MULTILINE | re.DOTALL)
    assert "assert " in source
    ran = harness.script(source, cwd=ROOT)
    assert (ran.code, ran.left) == (0, []), ran


def test_there_are_ten_recipes():
    assert len(RECIPES) == 10


NOTEBOOKS = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))
assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_its_recipe(path):
    """Its title, text and code are those of the recipe; cells tagged `not-in-recipe` add to it. It has been run."""
    first, *cells = json.loads(path.read_text())["cells"]
    text, code = "".join(first["source"]), [cell for cell in cells if cell["cell_type"] == "code"]
    [recipe] = [recipe for recipe in RECIPES if text.startswith(f"# {recipe.splitlines()[0]}\n")]
    prose, source = re.fullmatch(r".*?\n\n(.*?)\n\n```python\n(.*?)```\n.*", recipe, re.DOTALL).groups()
    assert prose in text
    taken = "\n".join("".join(cell["source"]) for cell in code if cell["metadata"].get("tags") != ["not-in-recipe"])
    assert list(filter(None, taken.splitlines())) == list(filter(None, source.splitlines()))
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert {output["output_type"] for cell in code for output in cell["outputs"]} <= {"stream", "execute_result"}


@pytest.mark.nightly
@pytest.mark.leaves("sockets of the notebook's client")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    nbformat, nbclient, _ = map(pytest.importorskip, ["nbformat", "nbclient", "ipykernel"])
    if path.stem == "large_csv":
        pytest.importorskip("pyarrow")
    before = set(harness.children())
    with harness.waiting("a notebook to run"):
        nbclient.NotebookClient(nbformat.read(path, 4), timeout=None).execute(cwd=str(tmp_path))
    harness.until(lambda: set(harness.children()) <= before, "the kernel and its workers to end")


def test_a_wrong_line_of_a_page_would_be_found():
    broken = program("docs/python.md").replace("== 1024", "== 1025")
    ran = harness.script(broken, cwd=ROOT)
    line = broken.splitlines().index("assert future.result() == 1025") + 1
    assert ran.code == 1 and f"line {line}" in ran.err and "AssertionError" in ran.err, ran


def test_examples_in_docstrings():
    report, count = [], 0
    for name in ["arenite", *MODULES]:
        if name in OPTIONAL and not importlib.util.find_spec(OPTIONAL[name]):
            continue
        runner = doctest.DocTestRunner()
        for test in doctest.DocTestFinder().find(importlib.import_module(name)):
            with harness.waiting(f"the examples of {test.name}"):
                runner.run(test, out=report.append)
        count += runner.summarize(verbose=False).attempted
    assert not report and count > 12, "".join(report)


def test_public_names_are_documented():
    for name in arenite.__all__:
        if not name.startswith("_"):
            assert (getattr(arenite, name).__doc__ or "").strip(), f"arenite.{name} has no docstring"


def run(*command):
    with harness.waiting("an example to end"):
        return subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)


def test_thumbnails(tmp_path):
    image = pytest.importorskip("PIL.Image")
    thumbs = tmp_path / "thumbs"
    # The lines of README.md.
    commands = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python ")]
    assert commands == ["python examples/python/thumbnails.py samples thumbs"]
    ran = run(*commands[0].split()[1:-1], thumbs)
    photos = sum(path.suffix in (".jpg", ".png") for path in (ROOT / "samples").rglob("*"))
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    assert photos == len(list(thumbs.iterdir())) == len(ran.stdout.splitlines()) > 0
    for thumb in thumbs.iterdir():
        with image.open(thumb) as opened:
            assert max(opened.size) <= 224


def test_thumbnails_of_a_damaged_photo(tmp_path):
    pytest.importorskip("PIL")
    photo = next((ROOT / "samples").rglob("*.jpg"))
    (tmp_path / "whole.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "damaged.jpg").write_bytes(photo.read_bytes()[:200])
    ran = run("examples/python/thumbnails.py", tmp_path, tmp_path / "thumbs")
    assert ran.returncode == 1 and ran.stdout.startswith("whole.jpg: "), ran
    assert ran.stderr.startswith("damaged.jpg: ") and "Traceback" not in ran.stderr, ran
    assert [thumb.name for thumb in (tmp_path / "thumbs").iterdir()] == ["whole.jpg"]


def test_thumbnails_without_photos(tmp_path):
    pytest.importorskip("PIL")
    ran = run("examples/python/thumbnails.py", tmp_path, tmp_path / "thumbs")
    assert ran.returncode == 1 and "no photos in" in ran.stderr, ran
    assert run("examples/python/thumbnails.py").stderr.startswith("usage: ")


def test_partitions(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.csv").write_text('item,price\napple,1.5\n"pear,\nripe",2\napple,0.5\n')
    (tmp_path / "b.csv").write_text("item,price\nplum,8\n")
    ran = run("examples/python/partitions.py", "item", "price", f"{tmp_path}/*.csv")
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    assert ran.stdout.splitlines() == ["8.0 plum", "2.0 apple", "2.0 pear, ripe"]
    (tmp_path / "c.csv").write_text("item,price\nplum,none\n")
    ran = run("examples/python/partitions.py", "item", "price", f"{tmp_path}/*.csv")
    assert ran.returncode == 1 and ran.stdout.startswith("8.0 plum\n"), ran
    assert ran.stderr.startswith(f'{tmp_path}/c.csv, row 1, column "price": "none" is not double'), ran
    assert run("examples/python/partitions.py").stderr.startswith("usage: ")


def test_each_example_is_run():
    """A new one needs a test here, in the file of what it uses (`store_client.py`), or at the command (`server.py`)."""
    names = {path.name for path in (ROOT / "examples/python").glob("*.py")}
    clients = {"service_client.py", "store_client.py"}
    assert names == {"partitions.py", "server.py", "thumbnails.py", "uploads.py", *clients}


def test_recordings_show_their_end_where_nothing_moves():
    """Readers of PDFs, and of pages that have been saved, see the picture without its animation."""
    films = [path for path in (ROOT / "docs/pictures").glob("*.svg") if 'class="film"' in path.read_text()]
    assert {film.stem for film in films} == {"resize", "crash"}
    for film in films:
        text = film.read_text()
        frames = [int(place) for place in re.findall(r'<g transform="translate\((\d+)\)">', text)]
        still = int(re.search(r'class="film" transform="translate\((-\d+)\)"', text)[1])
        assert len(frames) > 10 and still == -max(frames), film
