"""Makes the pages of the Python package: `api.py FOLDER`. The extension need not be built: its stub takes its place."""

import __future__

import importlib
import re
import sys
import tomllib
import types
import warnings
from pathlib import Path

import pdoc
import pdoc.render

ROOT = Path(__file__).resolve().parents[2]
#: What programs import beside the package, and its public names where a module does not hide others.
MODULES = {"arenite.dask": ["ArenitePlugin"], "arenite.joblib": ["shutdown"], "arenite.store": []}
MODULES["arenite.tables"] = ["Part", "Scan", "Table"]

#: The first name below each heading of the page of `arenite`.
HEADINGS = {
    "Executor": "Run tasks", "empty": "Arrays in shared memory", "cancelled": "Inside a task", "WorkerDied": "Errors",
    "read_csv": "Tables", "connect": "Stores and services", "before_fork": "Start-up",
}  # fmt: skip


def with_headings(page):
    """Returns the page of `arenite` with headings between groups of names, in its contents too."""
    for name, heading in HEADINGS.items():
        key = heading.lower().replace(" ", "-")
        entry = rf'<li class="group"><a href="#{key}">{heading}</a></li>\n\1'
        page, entries = re.subn(rf'(<li>\s*<a class="\w+" href="#{name}">)', entry, page)
        page, sections = re.subn(rf'(<section id="{name}">)', rf'<h2 id="{key}">{heading}</h2>\n\1', page)
        assert (entries, sections) == (1, 1), (name, entries, sections)
    return page


def without_paths(page):
    """Returns the page with classes in signatures without the private modules that they are made in."""
    span = r'<span class="{}">{}</span>'
    dot = span.format("o", r"\.")
    segments = f'{span.format("n", "arenite")}{dot}(?:{span.format("n", "[a-z_]+")}{dot})+'
    page = re.sub(segments, "", page)
    page = re.sub(r"\barenite\._?[a-z_]+\.(?:[a-z_]+\.)?(?=[A-Z])", "", page)
    assert "arenite._core" not in page
    return page


def stub():
    """The extension as its stub describes it. Annotations of stubs may name what comes later."""
    path = ROOT / "python/arenite/_arenite.pyi"
    module = types.ModuleType("arenite._arenite")
    module.__file__ = str(path)
    exec(compile(path.read_text(), path, "exec", __future__.annotations.compiler_flag), module.__dict__)
    module.__version__ = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    return module


def main(folder):
    sys.path.insert(0, str(ROOT / "python"))
    sys.modules["arenite._arenite"] = stub()
    import arenite

    for name in arenite.__all__:
        getattr(arenite, name)  # Names are imported when they are first used.
    for name, public in MODULES.items():
        if public:
            importlib.import_module(name).__all__ = public
    # Of types that exist only for type checkers, the text is shown.
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "Error parsing type annotation")
    footer = f"arenite {arenite.__version__}"
    pdoc.render.configure(template_directory=Path(__file__).with_name("pdoc"), footer_text=footer)
    pdoc.pdoc("arenite", *MODULES, output_directory=Path(folder))
    page = Path(folder, "arenite.html")
    page.write_text(without_paths(with_headings(page.read_text())))


if __name__ == "__main__":
    main(sys.argv[1])
