"""Makes the pages of the Python package: `api.py FOLDER`. The extension need not be built: its stub takes its place."""

import __future__

import importlib
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


if __name__ == "__main__":
    main(sys.argv[1])
