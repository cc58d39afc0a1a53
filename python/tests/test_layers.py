"""The structure of the package: which modules use private names of others."""

import ast
from pathlib import Path

import arenite
import pytest

PACKAGE = Path(arenite.__file__).parent
#: The extension is private, and no module of Python. `arenite._core` names its public parts without an underscore.
PACKAGES = {"_arenite", "_core"} | {path.stem for path in PACKAGE.glob("_*.py")}
#: Private names of the standard library and of other libraries, with the reason why no public name does the same.
FOREIGN = {
    "_FuncPtr": "ctypes: only the type of a library's functions says whether it keeps a copy of errno",
    "_flags_": "ctypes: the same",
    "_ParentProcess": "multiprocessing: what `parent_process()` returns in its own workers",
    "_parent_process": "multiprocessing: the same",
    "_extra_reducers": "multiprocessing: `ForkingPickler` shows its reducers only in a copy, for each pickler",
    "_identity": "multiprocessing: programs read the number of a pool's process from it",
    "_semlock": "multiprocessing: the semaphore in a lock, which refuses to be pickled for a `fork` context",
    "_args_from_interpreter_flags": "subprocess: the arguments for an interpreter with the flags of this one",
    "_at_fork_reinit": "_thread: frees a lock in a child, where the thread that holds it does not exist",
    "_clear": "atexit: a copy of the program must not run the handlers of the program",
    "_run_exitfuncs": "atexit: the end of a worker, which ends without the end of an interpreter",
    "_get_dump": "abc: the classes that a program has registered with an abstract one",
    "_register_atexit": "threading: called before Python waits for threads, unlike functions of `atexit`",
    "_registry": "weakref: the finalizers that run at the end of a template, but not of its copies",
    "_shutdown": "threading: waits for threads, at the end of a worker",
}
MOST_FOREIGN = 15
#: Names with an underscore that the documentation of Python describes.
DOCUMENTED = {"_exit", "_fields", "_getframe", "_name", "_replace", "_value_"}
#: Private attributes of public classes which another module sets or reads.
SHARED = {
    ("tables/plan.py", "_is_of_type"), ("tables/reader.py", "_is_of_type"),  # `TableError`
    ("store.py", "_ask"),  # `Draft` belongs to its `Store`
}  # fmt: skip


def uses(tree):
    """The private names that a module uses and does not define."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            own.add(node.attr)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            own |= {target.id for target in targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_self(node.value) and node.attr not in own:
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, name.name) for name in node.names if is_private(name.name))


def is_private(name):
    return name.startswith("_") and not name.endswith("__") and name not in PACKAGES


def is_self(node):
    """Whether an expression is the object of a method, whose private names its class may define in another module."""
    return isinstance(node, ast.Name) and node.id in ("self", "cls") or ast.unparse(node) == "super()"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_uses_private_names_of_another(path):
    name = path.relative_to(PACKAGE).as_posix()
    if name.startswith("bench/"):
        pytest.skip("a program, which compares internals")
    allowed = FOREIGN.keys() | DOCUMENTED
    found = [f"{name}:{line}: {used}" for line, used in uses(ast.parse(path.read_text())) if used not in allowed]
    found = [use for use in found if (name, use.rpartition(" ")[2]) not in SHARED]
    assert not found, found


def test_private_names_of_others_are_few_and_used():
    used = {name for tree in MODULES.values() for _, name in uses(tree)}
    assert FOREIGN.keys() | DOCUMENTED <= used and len(FOREIGN) <= MOST_FOREIGN


def test_a_use_of_a_private_name_is_found():
    wrong = "from .executor import _LEAST, Executor\ndef size(executor):\n    return executor._engine.size + other._name\n"
    assert [use for _, use in uses(ast.parse(wrong))] == ["_LEAST", "_name", "_engine"]


def test_the_core_lists_its_modules():
    import arenite._core

    listed = arenite._core.__doc__ or ""
    missing = [path.stem for path in (PACKAGE / "_core").glob("[!_]*.py") if f"`{path.stem}`" not in listed]
    assert not missing, missing


#: The largest number of lines with code in a module.
MOST_LINES = 500


def modules():
    """The syntax trees of all modules but those of the benchmarks, by their names."""
    paths = [path for path in PACKAGE.rglob("*.py") if "bench" not in path.parts]
    names = (".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)) for path in paths)
    trees = [ast.parse(path.read_text()) for path in paths]
    return {name.removesuffix(".__init__"): tree for name, tree in zip(names, trees, strict=True)}


MODULES = modules()


def imports_of(name, node, known):
    """The modules that a module imports at any time, apart from those for type checkers."""
    package = name.split(".") if (PACKAGE.parent / name.replace(".", "/")).is_dir() else name.split(".")[:-1]
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            child = ast.Module(child.orelse, [])
        if isinstance(child, ast.ImportFrom) and child.level:
            home = ".".join([*package[: len(package) - child.level + 1], *filter(None, [child.module])])
            yield from (whole if (whole := f"{home}.{one.name}") in known else home for one in child.names)
        yield from imports_of(name, child, known)


def circle(modules):
    """The modules that import each other, and those that import them."""
    left = {name: set(imports_of(name, tree, modules)) - {name} for name, tree in modules.items()}
    while lowest := [name for name, uses in left.items() if not uses & left.keys()]:
        for name in lowest:
            del left[name]
    return left


def test_modules_import_each_other_in_layers():
    assert not circle(MODULES)


def test_a_circle_is_found():
    texts = {"arenite.a": "from . import b", "arenite.b": "def f():\n from .c import g"}
    texts["arenite.c"] = "from .a import h"
    assert circle({name: ast.parse(text) for name, text in texts.items()}).keys() == texts.keys()
    texts["arenite.b"] = "if TYPE_CHECKING:\n from .c import g"
    assert not circle({name: ast.parse(text) for name, text in texts.items()})


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_are_short(name):
    nodes = list(ast.walk(MODULES[name]))
    texts = {node.lineno for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    assert len({node.lineno for node in nodes if hasattr(node, "lineno")} - texts) <= MOST_LINES
