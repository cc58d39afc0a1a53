"""Which promise of docs/python.md is shown by which program here, or by which test beside this folder."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parents[1] / "docs/python.md").read_text()
#: Sections, bullets and rows of tables, by their first words: the title of a program, or a test.
SHOWN = {
    "## Tasks": "a function that uses a global, and one that others register",
    "| `\"forkserver\"`": "test_template.py",
    "| `\"spawn\"`": "test_inherit.py",
    "| `\"fork\"`": "test_inherit.py",
    "- **A guard**": "a main file without a guard",
    "## Arrays": "a whole array, to which tasks and the program write",
    "## Failures": "an exception of one call of many",
    "## One function in a process of its own": "test_isolated.py",
    "## Sandbox": "test_sandbox.py",
    "## Notebooks, threads, asyncio": "test_output.py",
    "## joblib and scikit-learn": "test_joblib.py",
    "## Serve functions to other programs": "test_service.py",
    "## Random numbers": "random numbers of workers, each with its own",
    "## What workers have of the program": "an object of a module with an open file",
    "| environment": "test_environments.py",
    "| working directory": "test_environments.py",
    "| `hash()` of text": "test_environments.py",
    "| `sys.path`": "objects of the standard library under other names",
    "| filters of warnings": "test_environments.py",
    "| `multiprocessing` objects": "numbers, arrays and texts that are shared",
    "| settings of libraries": "precision and rounding of decimals",
    "| settings in the program's own modules": "objects of a module of the program: registries, containers, methods",
    "| connections and sockets": "an object through a connection",
    "| the main file": "the path of the main file",
    **dict.fromkeys(("| tool", "| debugpy", "| pdb", "| coverage", "| cProfile"), "test_tools.py"),
    "## What runs now": "test_worker.py",
    "## Logging": "test_logging.py",
    "## What pickling does": "numbers, and what is one object",
    "- **Data travels by value.**": "a bound method that changes its object",
    "- **Definitions travel by name.**": "annotations that are text",
    "- **What a task unpickles itself**": "an object that a function loads",
    "- **What the program changes, wins.**": "a global that becomes equal values of other types",
    "- Instances of the program's classes": "an object that contains itself",
    "- A class is made from its attributes.": "methods of many kinds",
    "- **Lambdas, closures and local classes**": "a closure over a list",
    "- A large array in a global": "arrays, bytes and numbers of C that change",
    "- Sockets in globals, open files": "what cannot be sent for a while, where a task reaches it and does not need it",
    "- An exception is checked in the worker": "test_issues_pickling.py",
    "- What a worker sends is unpickled": "test_sandbox.py",
    "## Memory and lifetimes": "test_kept_arrays.py",
    "## Pythons and platforms": "test_environments.py",
    "## Coming from another library": "test_pool.py",
}
#: Rows of the table of intended differences that have a test elsewhere: they take terminals, or a file without a guard.
ELSEWHERE = {"a main file without a guard": "test_newcomer.py", "Ctrl-C in a terminal": "test_interrupt.py"}
ELSEWHERE["a process that a task forks, when the task's function returns or raises there"] = "test_worker.py"


def check(programs):
    """Fails unless each promise is shown, by what is there."""
    shown = {**SHOWN, **ELSEWHERE}.values()
    missing = [name for name in shown if name not in (*programs, *ELSEWHERE) and not (TESTS / name).is_file()]
    assert not missing, f"no programs and no tests: {missing}"
    sections = re.split(r"^(?=## )", PAGE, flags=re.M)[1:]
    promised = [section.split("\n")[0] for section in sections]
    for title in ("## What workers have of the program", "## What pickling does"):
        section = next(section for section in sections if section.startswith(title))
        promised += re.findall(r"^(?:- |\| (?!what|---)).*", section.split("with these intended differences")[0], re.M)
    assert not [one for one in promised if not one.startswith(tuple(SHOWN))]
    assert not [begin for begin in SHOWN if f"\n{begin}" not in PAGE]
    table = PAGE.split("with these intended differences:\n\n")[1].split("\n\n")[0].splitlines()[2:]
    cells = {row.split(" | ")[0].removeprefix("| ") for row in table}
    assert not [cell for cell in cells if not cell.startswith((*programs, *ELSEWHERE))]
