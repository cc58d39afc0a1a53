"""Where programs run: started in any way, in any process, with any search path."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import venv
import zipapp
from pathlib import Path

import arenite
import harness
import pytest

#: Where this package and its dependencies are found, for interpreters that do not have them installed.
PATHS = [str(Path(arenite.__file__).parents[1]), *(path for path in sys.path if path.endswith("site-packages"))]
WITH_PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}

SQUARES = """
    import arenite

    class Squarer:
        def __call__(self, n):
            print("square of", n)
            return n * n

    with arenite.Executor(1) as executor:
        squares = list(executor.map(Squarer(), range(3)))
        arguments = executor.submit(lambda: __import__("sys").argv[1:]).result()
    print(squares, arguments)      # after what tasks have printed
"""


@pytest.mark.parametrize(
    "flags", [[], ["-I"], ["-OO"], ["-X", "dev"], ["-W", "error"], ["-B", "-u"], ["-X", "utf8=0"], ["-P", "-E"]], ids=" ".join
)
def test_flags_of_the_interpreter(flags):
    ran = harness.script(SQUARES, "one", flags=flags, cwd="/").ok()
    assert ran.out.splitlines() == [*(f"(arenite:0) square of {n}" for n in range(3)), "[0, 1, 4] ['one']"]


def test_another_copy_of_the_package_is_found_first(tmp_path):
    """Workers run the copy that the program runs: a checkout in front of an installed package, for example."""
    for name in ("first", "second"):
        copied = tmp_path / name / "arenite"
        shutil.copytree(Path(arenite.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        for extension in Path(arenite.__file__).parent.glob("*.so"):
            (copied / extension.name).symlink_to(extension)
    program = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import arenite

        def files():
            import arenite, arenite._core.pickling, sys
            loaded = [module for name, module in sys.modules.items() if name.split(".")[0] == "arenite"]
            return {module.__file__ for module in loaded}

        with arenite.Executor(1) as executor:
            print(*executor.submit(files).result(), sep="\\n")
    """
    # An interpreter finds the second one first.
    paths = os.pathsep.join([str(tmp_path / "second"), *PATHS])
    ran = harness.script(program, tmp_path / "first", env={**os.environ, "PYTHONPATH": paths}, cwd="/").ok()
    files = ran.out.split()
    assert len(files) > 3 and all(file.startswith(f"{tmp_path}/first/arenite/") for file in files), files


@pytest.mark.parametrize("how", ["-", "-c"])
def test_source_that_is_no_file(how):
    ran = harness.script(SQUARES, "one", how=how).ok()
    assert ran.out.splitlines() == [*(f"(arenite:0) square of {n}" for n in range(3)), "[0, 1, 4] ['one']"]


def test_a_module_that_is_run(tmp_path):
    """`python -m package.program`: `__main__` has another name in `sys.modules`, and relative imports."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sizes.py").write_text("def double(n):\n    return 2 * n\n")
    (package / "program.py").write_text(
        textwrap.dedent(
            """
            import arenite
            from . import sizes

            def quadruple(n):
                return sizes.double(sizes.double(n))

            print(list(arenite.Executor(1).map(quadruple, range(3))))
            """
        )
    )
    with harness.waiting("a module to run"):
        ran = subprocess.run(
            [sys.executable, "-m", "package.program"], cwd=tmp_path, env=WITH_PATHS, capture_output=True, text=True
        )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[0, 4, 8]\n", "")


def test_a_program_in_a_zip_file(tmp_path):
    source = tmp_path / "program"
    source.mkdir()
    (source / "beside.py").write_text("def double(n):\n    return 2 * n\n")
    (source / "__main__.py").write_text(
        "import arenite, beside\n"
        "def quadruple(n):\n    return beside.double(beside.double(n))\n"
        "print(list(arenite.Executor(1).map(quadruple, range(3))))\n"
        "print(list(arenite.Executor(1).map(beside.double, range(3))))\n"
    )
    zipapp.create_archive(source, tmp_path / "program.pyz")
    with harness.waiting("a program in a zip file"):
        ran = subprocess.run([sys.executable, tmp_path / "program.pyz"], env=WITH_PATHS, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[0, 4, 8]\n[0, 2, 4]\n", "")


@pytest.mark.parametrize("mode", ["importlib", "prepend", "append"])
def test_tests_of_users(tmp_path, mode):
    """Modules that pytest makes in importlib mode cannot be imported by their names."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_pool.py").write_text(
        textwrap.dedent(
            """
            import arenite, pytest

            class Point:
                def __init__(self, x):
                    self.x = x

            def moved(point):
                print("moved", point.x)
                return Point(point.x + 1)

            @pytest.fixture(scope="module")
            def executor():
                with arenite.Executor(1) as executor:
                    yield executor

            def test_instances_come_back(executor):
                assert isinstance(executor.submit(moved, Point(1)).result(), Point)

            def test_output_is_captured(executor, capsys):
                executor.submit(moved, Point(7)).result()
                executor.shutdown()
                assert "moved 7" in capsys.readouterr().out

            @pytest.mark.parametrize("n", [1, 2])
            def test_exceptions(n):
                with arenite.Executor(1) as executor, pytest.raises(ZeroDivisionError):
                    executor.submit(lambda: n // 0).result()
            """
        )
    )
    with harness.waiting("pytest in pytest"):
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--import-mode={mode}", tests],
            cwd=tmp_path, env=WITH_PATHS, capture_output=True, text=True,
        )  # fmt: skip
    assert ran.returncode == 0 and "4 passed" in ran.stdout, ran.stdout + ran.stderr


def value(cell):
    """What the cell's last expression is, as text; what a task printed may come before it or after."""
    return next(output["data"]["text/plain"] for output in cell.outputs if "data" in output)


@pytest.mark.leaves("sockets of the notebook's client")
def test_tracebacks_name_cells():
    """As those of IPython do, for the same calls in the notebook's own process."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [
        "import arenite\nimport statistics\nexecutor = arenite.Executor(1)",
        "def inner(values):\n    return statistics.mean(values)  # without values\n\n\nclass Model:\n"
        "    def run(self, values):\n        return [inner(one) for one in values]",
        "def outer():\n    try:\n        Model().run([()])\n    except Exception as error:\n"
        "        raise ValueError('outer') from error",
        "executor.submit(outer).result()",
        "outer()",
        "executor.submit(lambda: 1 // len('')).result()",
        "list(executor.map(lambda n: 1 // n, [0]))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with harness.waiting("a notebook to run"):
        nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3", allow_errors=True).execute()
    traces = [re.sub(r"\x1b\[[\d;]*m", "", "\n".join(cell.outputs[-1]["traceback"])) for cell in notebook.cells[3:]]
    submitted, called = (set(re.findall(r"Cell In\[(\d+)\], line (\d+)", trace)) for trace in traces[:2])
    # IPython names the line at which `outer` is, also for the first exception.
    assert submitted - {("4", "1"), ("3", "3")} == called - {("5", "1")} == {("2", "2"), ("2", "7"), ("3", "5")}
    assert ("3", "3") in submitted
    remote = traces[0][traces[0].index("Traceback (most recent call last)") :]
    assert "Cell In[2], line 2, in inner\n    return statistics.mean(values)  # without values\n" in remote
    assert "ipykernel" not in remote and "statistics.py" in remote
    for number, trace in enumerate(traces[2:], 6):
        assert f"Cell In[{number}], line 1, in <lambda>\n    {cells[number - 1]}\n" in trace, trace


@pytest.mark.leaves("sockets of the notebook's client")
def test_a_cell_that_is_run_again():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    before = set(harness.children())
    cell = nbformat.v4.new_code_cell(
        "import arenite\n"
        "executor = arenite.Executor(1)\n"
        "offset = 0 if 'offset' not in globals() else offset + 10\n"
        "def shifted(n):\n    print('shift', n)\n    return n + offset\n"
        "list(executor.map(shifted, range(2))) + list(executor.map(lambda n: n * offset, range(2)))"
    )
    workers = nbformat.v4.new_code_cell("len(executor.stats().workers), executor.submit(lambda: shifted(5)).result()")
    interrupted = nbformat.v4.new_code_cell("executor.submit(lambda: 1 // 0).result()")
    interrupted.metadata["tags"] = ["raises-exception"]
    cells = [cell, cell.copy(), cell.copy(), workers, interrupted]
    for number, each in enumerate(cells):
        each["id"] = f"cell{number}"
    notebook = nbformat.v4.new_notebook(cells=cells)
    with harness.waiting("a notebook to run"):
        nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3").execute()
    for number, each in enumerate(notebook.cells[:3]):
        printed = "".join(output.get("text", "") for output in each.outputs if output.get("name") == "stdout")
        assert printed.splitlines() == ["(arenite:0) shift 0", "(arenite:0) shift 1"], each.outputs
        offset = 10 * number
        assert value(each) == repr([offset, 1 + offset, 0, offset])
    assert value(notebook.cells[3]) == "(1, 25)"
    assert notebook.cells[4].outputs[-1]["ename"] == "ZeroDivisionError"
    harness.until(lambda: set(harness.children()) <= before, "the kernel and its workers to end")


def test_beside_threads():
    """Threads of the program make, use and end executors at the same time."""
    ran = harness.script(
        """
        import threading
        from concurrent.futures import ThreadPoolExecutor, as_completed
        import arenite

        shared = arenite.Executor(2)

        def use(number):
            futures = [shared.submit(pow, number, k) for k in range(20)]
            total = sum(future.result() for future in as_completed(futures))
            assert total == sum(number**k for k in range(20))
            assert list(shared.map(lambda k: k + number, range(50))) == list(range(number, number + 50))
            with arenite.Executor(1) as own:
                local = own.submit(lambda: number)
                assert local.result() == number
            stopped = shared.submit(__import__("time").sleep, 60)
            assert stopped.cancel() and stopped.cancelled()

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(use, range(6)))
        # A thread that is still there when the interpreter goes.
        threading.Thread(target=lambda: shared.submit(print, "last").result()).start()
        """
    )
    assert ran.ok().out == "(arenite:0) last\n" or ran.out == "(arenite:1) last\n", ran


def test_after_a_fork():
    """The child gets an error that says what to do, can have executors of its own, and ends without a word."""
    pytest.importorskip("numpy")
    ran = harness.script(
        """
        import os, sys
        import arenite, numpy

        with arenite.Executor(1) as executor:
            array = executor.share(numpy.arange(1000))
            pending = executor.submit(sum, [1, 2])
            items = executor.map(abs, [-1, -2])
            child = os.fork()
            if child == 0:
                for name, use in [
                    ("submit", lambda: executor.submit(abs, -1)),
                    ("map", lambda: list(executor.map(abs, [-1]))),
                    ("share", lambda: executor.share(numpy.ones(3))),
                    ("empty", lambda: executor.empty(3)),
                    ("stats", lambda: executor.stats()),
                    ("result", lambda: pending.result()),
                    ("results", lambda: next(items)),
                ]:
                    try:
                        print(name, use())
                    except RuntimeError as error:
                        print(name, "fork" in str(error) and "after the fork" in str(error))
                with arenite.Executor(1) as own:
                    print("own", own.submit(numpy.sum, array).result(), own.submit(len, array).result())
                executor.shutdown()
            else:
                _, status = os.waitpid(child, 0)
                print("child", os.waitstatus_to_exitcode(status))
                print("parent", pending.result(), list(items), executor.submit(numpy.sum, array).result())
        """
    )
    uses = ["submit", "map", "share", "empty", "stats", "result", "results"]
    wanted = [*(f"{use} True" for use in uses), "own 499500 1000", "child 0", "parent 3 [1, 2] 499500"]
    assert ran.ok().out.splitlines() == wanted, ran


def test_a_virtual_environment_with_additions(tmp_path):
    """Workers have the same prefix, what .pth files add, and what the program adds to the path."""
    folder = tmp_path / "venv"
    with harness.waiting("a virtual environment"):
        venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "additions.pth").write_text("\n".join(PATHS))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "extra.py").write_text("import sys\ndef prefix(): return sys.prefix\n")
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            """
            import os, sys
            sys.path.append("more")          # relative, and the folder changes
            import extra, arenite
            with arenite.Executor(1) as executor:
                os.chdir("/")
                print(executor.submit(extra.prefix).result(), executor.submit(lambda: sys.executable).result())
            """
        )
    )
    with harness.waiting("a program in a virtual environment"):
        ran = subprocess.run(
            [folder / "bin" / "python", "program.py"], cwd=tmp_path, capture_output=True, text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )  # fmt: skip
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", f"{folder} {folder}/bin/python\n")


def test_no_standard_streams(tmp_path):
    """A daemon has closed them: the descriptors of workers must not take their places."""
    script = harness.script(
        f"""
        import sys, arenite
        with arenite.Executor(1) as executor:
            executor.submit(print, "lost").result()
            value = executor.submit(pow, 2, 5).result()
        open({str(tmp_path / "value")!r}, "w").write(f"{{value}} {{sys.stdout}}")
        """,
        prefix=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"],
    )
    script.ok()
    assert (tmp_path / "value").read_text() == "32 None"


def test_replaced_workers_start_where_the_first_ones_did(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (first / "helper.py").write_text("import os\ndef where(): return os.getcwd()\n")
    ran = harness.script(
        f"""
        import os, sys
        os.chdir({str(first)!r})
        sys.path.insert(0, "")
        import arenite, helper
        with arenite.Executor(1) as executor:
            print(executor.submit(helper.where).result())
            os.chdir({str(second)!r})
            executor.submit(os._exit, 1).exception()
            print(executor.submit(helper.where).result())
        """
    )
    assert ran.ok().out == f"{first}\n{first}\n"


def test_a_working_directory_that_is_gone(tmp_path):
    ran = harness.script(
        """
        import os, tempfile, arenite
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        os.rmdir(folder)
        with arenite.Executor(1) as executor:
            print(executor.submit(pow, 2, 5).result())
            executor.submit(os._exit, 1).exception()
            print(executor.submit(pow, 2, 5).result())
        """
    )
    assert ran.ok().out == "32\n32\n"


def test_an_embedded_interpreter():
    ran = harness.script(
        """
        import sys
        python, sys.executable = sys.executable, ""
        import arenite
        try:
            arenite.Executor(1)
        except RuntimeError as error:
            print("Settings(python=" in str(error))
        with arenite.Executor(1, settings=arenite.Settings(python=python)) as executor:
            print(executor.submit(pow, 2, 5).result())
        with arenite.Executor(0) as executor:
            print(executor.submit(pow, 2, 6).result())
        """
    )
    assert ran.ok().out == "True\n32\n64\n"


def test_another_version_of_python(tmp_path):
    """Byte code and pickles are exchanged: a worker of another version is refused, not run until it crashes."""
    names = [f"python3.{minor}" for minor in (11, 12, 13, 14) if minor != sys.version_info.minor]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = [path for name in names for path in [*versions.glob(f"*/bin/{name}"), Path("/usr/bin", name)] if path.exists()]
    if not found:
        pytest.skip("there is no other Python here")
    with pytest.raises((arenite.StartFailed, OSError), match="cpython-3"):
        with arenite.Executor(1, settings=arenite.Settings(python=str(found[0]))) as executor:
            executor.submit(pow, 2, 5).result()


@pytest.mark.parametrize("platform, words", [("linux", "pip install ./python"), ("darwin", "runs on Linux, not on darwin")])
def test_without_the_extension(tmp_path, platform, words):
    """In the source tree, or on another system."""
    package = tmp_path / "arenite"
    shutil.copytree(Path(arenite.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    with harness.waiting("an import to fail"):
        ran = subprocess.run(
            [sys.executable, "-c", f"import sys, arenite; sys.platform = {platform!r}; arenite.Executor"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True,
        )  # fmt: skip
    assert "ImportError" in ran.stderr and words in ran.stderr, ran.stderr


FROZEN = """
    import os
    import sys

    import arenite
    import frozen_helper

    def square(n):
        return n * n

    if __name__ == "__main__":
        python, = sys.argv[1:] or [None]
        if python != "unsupported":
            arenite.freeze_support()
        else:
            python = None
        with arenite.Executor(1, settings=arenite.Settings(python=python)) as ex:
            found = list(ex.map(lambda n: square(n) + 1, range(3)))
            if python is None:
                found.append(ex.submit(frozen_helper.two).result())
                found.append(type(ex.submit(os._exit, 3).exception()).__name__)
            print(*found, ex.submit(os.getpid).result() != os.getpid())
"""


@pytest.mark.patience(900)
@pytest.mark.parametrize("form", ["--onedir", "--onefile"])
def test_a_frozen_program_is_its_own_worker(tmp_path, form):
    pytest.importorskip("PyInstaller")
    (tmp_path / "program.py").write_text(textwrap.dedent(FROZEN))
    (tmp_path / "frozen_helper.py").write_text("def two():\n    return 2\n")
    without = [word for name in ("numpy", "pandas", "pyarrow") for word in ("--exclude-module", name)]
    with harness.waiting("PyInstaller"):
        subprocess.run(
            [sys.executable, "-m", "PyInstaller", "--log-level", "ERROR", form, *without, "program.py"],
            cwd=tmp_path, env=WITH_PATHS, check=True, capture_output=True,
        )  # fmt: skip
    program = tmp_path / "dist" / "program"
    program = program / "program" if program.is_dir() else program

    def run(*arguments, **env):
        with harness.waiting("the frozen program"):
            ran = subprocess.run([program, *arguments], capture_output=True, text=True, env={**os.environ, **env}, cwd="/")
        return ran.stdout.strip() or ran.stderr

    assert run() == "1 2 5 2 WorkerDied True"
    assert "Call arenite.freeze_support() first in the main program" in run("unsupported")
    # The modules of the program are not there.
    assert run(sys.executable, **WITH_PATHS) == "1 2 5 True"


def test_a_build_without_rust_says_what_to_install(tmp_path):
    """As pip calls it, once it has installed maturin. See PEP 517."""
    names = "build_editable build_sdist build_wheel prepare_metadata_for_build_editable prepare_metadata_for_build_wheel"
    hooks = "get_requires_for_build_wheel get_requires_for_build_editable get_requires_for_build_sdist"
    lines = [f"def {name}(*_): return ['maturin']" for name in f"{names} {hooks}".split()]
    (tmp_path / "maturin.py").write_text("\n".join(lines))
    cargo = tmp_path / "bin" / "cargo"

    def ask(hook, **env):
        program = f"import build_backend; print(build_backend.{hook}())"
        path = [str(Path(__file__).parents[1]), str(tmp_path)]
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True,
            env={"PYTHONPATH": os.pathsep.join(path), "CARGO_HOME": str(tmp_path), **env},
        )  # fmt: skip

    for hook in hooks.split():
        ran = ask(hook, PATH="")
        assert ran.returncode == 1 and ran.stderr.count("\n") == 1, ran
        assert "Install Rust from https://rustup.rs and run pip again" in ran.stderr
    cargo.parent.mkdir()
    cargo.touch(0o755)
    assert f"There is one in {cargo.parent}: add it to PATH" in ask(hook, PATH="").stderr
    assert ask(hook, PATH=str(cargo.parent)).stdout == "['maturin']\n"
