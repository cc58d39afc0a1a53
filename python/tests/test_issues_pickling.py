"""Functions, arguments and exceptions that other pools cannot send: what users reported, and what happens here."""

import concurrent.futures
import functools
import os
import pickle
import signal
import sys
import threading

import arenite
import harness
import pytest


class NeedsTwo(Exception):
    """`__reduce__` of exceptions replays `args`, which has one entry here."""

    def __init__(self, code, reason):
        super().__init__(f"{reason} ({code})")
        self.code = code


class HoldsLock(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


class ReducesBadly(Exception):
    def __reduce__(self):
        raise TypeError("cannot reduce this")


def unpickle_badly():
    raise RuntimeError("cannot unpickle this")


class UnpicklesBadly(Exception):
    def __reduce__(self):
        return unpickle_badly, ()


class KeywordOnly(Exception):
    def __init__(self, *, path):
        super().__init__()
        self.path = path

    def __str__(self):
        return f"nothing at {self.path}"


def raise_with_a_name_to_find(kind):
    raise {
        "NeedsTwo": lambda: NeedsTwo(7, "disk is on fire"),
        "HoldsLock": lambda: HoldsLock("disk is on fire"),
        "ReducesBadly": lambda: ReducesBadly("disk is on fire"),
        "UnpicklesBadly": lambda: UnpicklesBadly("disk is on fire"),
        "KeywordOnly": lambda: KeywordOnly(path="disk is on fire"),
    }[kind]()


def return_(make):
    return make()


def double(number):
    return 2 * number


class CannotBePickled:
    def __reduce__(self):
        raise pickle.PicklingError("made to fail")


class CannotBeUnpickled:
    """Raises where it is unpickled, and remembers in which process that was."""

    def __reduce__(self):
        return unpickle_badly, ()


@pytest.fixture(scope="module")
def executor():
    with arenite.Executor(max_workers=2) as executor:
        executor.submit(os.getpid).result()
        yield executor


@pytest.mark.parametrize("kind", ["NeedsTwo", "HoldsLock", "ReducesBadly", "UnpicklesBadly", "KeywordOnly"])
def test_exceptions_that_cannot_be_sent(executor, kind):
    """cpython#103061, #93542, #79492: an exception that cannot be unpickled hangs or breaks the pool."""
    error = executor.submit(raise_with_a_name_to_find, kind).exception()
    assert isinstance(error, Exception)
    text = f"{type(error).__name__}: {error}"
    assert kind in text
    assert "disk is on fire" in text
    # The remote traceback is the cause, as with the standard library.
    assert "raise_with_a_name_to_find" in str(error.__cause__)
    assert executor.submit(double, 4).result() == 8


def test_exceptions_keep_notes_causes_and_groups(executor):
    def fail():
        try:
            raise KeyError("inner")
        except KeyError as inner:
            error = ExceptionGroup("several", [ValueError("one"), OSError(2, "two")])
            error.add_note("seen at the third station")
            raise error from inner

    error = executor.submit(fail).exception()
    assert type(error) is ExceptionGroup
    assert [str(one) for one in error.exceptions] == ["one", "[Errno 2] two"]
    assert error.__notes__ == ["seen at the third station"]
    assert "KeyError: 'inner'" in str(error.__cause__)


@pytest.mark.parametrize("unpicklable", [CannotBePickled(), threading.Lock(), (number for number in range(3))])
def test_arguments_that_cannot_be_pickled(executor, unpicklable):
    """noxdafox/pebble#146, cpython#116685: one such argument hangs the pool or its shutdown."""
    future = executor.submit(double, unpicklable)
    assert isinstance(future.exception(), (TypeError, pickle.PicklingError))
    assert executor.submit(double, 4).result() == 8


def test_unpicklable_argument_and_a_shutdown_that_cancels():
    executor = arenite.Executor(max_workers=1)
    futures = [executor.submit(double, argument) for argument in (CannotBePickled(), 1, threading.Lock(), 2)]
    with harness.waiting("shutdown(cancel_futures=True)"):
        executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    for future in (futures[0], futures[2]):
        assert isinstance(future.exception(), (TypeError, pickle.PicklingError))


def test_results_that_cannot_be_pickled(executor):
    error = executor.submit(return_, threading.Lock).exception()
    assert isinstance(error, (TypeError, pickle.PicklingError))
    assert "lock" in str(error)
    assert executor.submit(double, 4).result() == 8


def test_results_that_cannot_be_unpickled(executor):
    """The error is raised by `result()`, in the thread that asked, each time; nothing else notices."""
    future = executor.submit(return_, CannotBeUnpickled)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cannot unpickle this"):
            future.result()
    assert executor.submit(double, 4).result() == 8


def test_local_functions_and_lambdas(executor):
    """cpython#126831, #142249, python-adaptive/adaptive#497: not with another start method than fork."""
    offset = 10

    def add(number):
        return number + offset

    assert executor.submit(add, 1).result() == 11
    assert list(executor.map(lambda number: number * offset, range(3))) == [0, 10, 20]
    assert executor.submit(functools.partial(add, number=5)).result() == 15


def test_lambda_initializer():
    place = {}
    with arenite.Executor(
        max_workers=1, initializer=lambda value: place.update(value=value), initargs=(7,)
    ) as executor:
        executor.submit(double, 1).result()
    assert place == {}

    with arenite.Executor(max_workers=1, initializer=lambda: os.environ.__setitem__("INITIALISED", "yes")) as executor:
        assert executor.submit(lambda: os.environ["INITIALISED"]).result() == "yes"
    assert "INITIALISED" not in os.environ


MAIN = """
    import arenite

    OFFSET = 3

    class Point:
        def __init__(self, x):
            self.x = x

    def helper(number):
        return number + OFFSET

    def moved(point):
        assert isinstance(point, Point)
        return Point(helper(point.x))

    executor = arenite.Executor(2, initializer=lambda: None)
    points = list(executor.map(moved, map(Point, range(3))))
    assert all(isinstance(point, Point) for point in points)
    print([point.x for point in points])
    executor.shutdown()
"""


@pytest.mark.parametrize("how", ["file", "-c", "-"])
def test_functions_and_classes_of_main_without_a_guard(how):
    """cloudpipe/cloudpickle#195: an instance of a class in `__main__` comes back as one of another class."""
    assert harness.script(MAIN, how=how).ok().out == "[3, 4, 5]\n"


def test_main_is_not_run_again_in_workers():
    assert (
        harness.script(
            """
            print("main")
            import arenite
            executor = arenite.Executor(2)
            print(list(executor.map(lambda number: number, range(2))))
            executor.shutdown()
            """
        )
        .ok()
        .out
        == "main\n[0, 1]\n"
    )


def run_notebook(*cells):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with harness.waiting("a notebook to run"):
        nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3").execute()
    return [
        "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for cell in notebook.cells
    ]


@pytest.mark.leaves("sockets of the notebook's client")
def test_functions_and_classes_of_a_notebook_cell():
    outputs = run_notebook(
        "import arenite\nclass Point:\n    def __init__(self, x): self.x = x\n",
        "def moved(point):\n    assert isinstance(point, Point)\n    return Point(point.x + 1)\n",
        "executor = arenite.Executor(2)",
        "points = list(executor.map(moved, map(Point, range(3))))\nall(isinstance(point, Point) for point in points)",
        "def moved(point): return Point(point.x + 10)\n",
        "[point.x for point in executor.map(moved, points)]",
        "executor.shutdown()",
    )
    assert outputs[3] == "True"
    assert outputs[5] == "[11, 12, 13]"


# ---- exceptions that other pools send in another way


def decode(data, filler):
    return (filler * data + b"\xff").decode()


@pytest.mark.parametrize("size", [1_000, 1 << 20, 40 << 20])
def test_an_exception_of_any_size_keeps_its_type(executor, size):
    """psf/requests#6628: errors of decoding hold the whole document."""
    error = executor.submit(decode, size, b"a").exception()
    assert type(error) is UnicodeDecodeError
    assert (error.start, len(error.object)) == (size, size + 1)
    assert "in decode" in str(error.__cause__)


def test_an_exception_of_any_size_keeps_its_type_however_results_are_read():
    size = 40 << 20
    with arenite.Executor(1, output="plain") as ex, harness.waiting("large exceptions"):
        chosen = ex.options(retry_errors=(KeyError,))
        for error in (ex.submit(decode, size, b"a").exception(), chosen.submit(decode, size, b"a").exception()):
            assert type(error) is UnicodeDecodeError and error.start == size


def first_even(numbers):
    return next(number for number in numbers if number % 2 == 0)


NUMBERS = [[1, 2], [3, 4], [5, 7], [6], [9, 11], [8]]
STOPPED = "generator raised StopIteration"


def outcomes(results):
    """What is given and raised until the end."""
    given = []
    while True:
        try:
            given.append(next(results))
        except StopIteration:
            return given
        except RuntimeError as error:
            given.append(str(error))


@pytest.mark.parametrize("chunksize", [1, 2, 3, 4, 6, 10])
def test_a_stop_iteration_does_not_end_a_map(executor, chunksize):
    """python/cpython#100111: the results after it are lost without a word."""
    expected = [2, 4, STOPPED, 6, STOPPED, 8]
    assert outcomes(executor.map(first_even, NUMBERS, chunksize=chunksize)) == expected
    with pytest.raises(RuntimeError, match=STOPPED):
        list(executor.map(first_even, NUMBERS, chunksize=chunksize))


def test_a_stop_iteration_is_a_runtime_error_everywhere(executor):
    error = executor.submit(first_even, [1]).exception()
    assert (type(error), str(error)) == (RuntimeError, STOPPED)
    assert "StopIteration" in str(error.__cause__) and "in first_even" in str(error.__cause__)
    with arenite.Pool(2) as pool:
        assert outcomes(pool.imap(first_even, NUMBERS)) == [2, 4, STOPPED, 6, STOPPED, 8]
        unordered = sorted(map(str, outcomes(pool.imap_unordered(first_even, NUMBERS))))
        assert unordered == ["2", "4", "6", "8", STOPPED, STOPPED]
        for call in (
            lambda: pool.map(first_even, NUMBERS),
            lambda: pool.map(first_even, NUMBERS, chunksize=4),
            lambda: pool.starmap(first_even, [(one,) for one in NUMBERS], chunksize=3),
            lambda: pool.apply(first_even, ([1],)),
        ):
            with pytest.raises(RuntimeError, match=STOPPED):
                call()
    with arenite.Executor(0) as inline:
        assert type(inline.submit(first_even, [1]).exception()) is RuntimeError
        assert outcomes(inline.map(first_even, NUMBERS)) == [2, 4, STOPPED, 6, STOPPED, 8]


# ---- arrays that are written


def fill(array):
    array[:] = 7
    return array


def test_small_arrays_are_writable(executor):
    np = pytest.importorskip("numpy")
    for order in "CF":
        array = np.zeros((20, 20), order=order)
        result = executor.submit(fill, array).result()
        result += 1
        assert (result == 8).all() and (array == 0).all()
        assert result.flags.f_contiguous == (order == "F")


def test_errors_about_read_only_arrays_say_what_to_do(executor):
    np = pytest.importorskip("numpy")
    large = np.zeros(1000)
    error = executor.submit(fill, executor.share(large)).exception()
    assert type(error) is ValueError and "read-only" in str(error)
    assert any('writable="copy"' in note for note in error.__notes__)
    with arenite.Pool(1) as pool:
        result = pool.apply(fill, (large,))
        result += 1
        assert (result == 8).all() and (large == 0).all()


def test_data_frames_and_models_are_edited():
    """modin#525, apache/arrow#4128, scikit-learn#25165: what came from a task, or goes to one, cannot be edited."""
    pd = pytest.importorskip("pandas")
    with arenite.Pool(1) as pool:
        frame = pool.apply(pd.DataFrame, ({"a": list(range(1000)), "b": ["x"] * 1000},))
        frame.loc[frame.a > 500, "a"] = 0
        frame.loc[1, "b"] = "y"
        assert (frame.a.max(), frame.b[1]) == (500, "y")


# ---- programs that end themselves


class Exits:
    def __reduce__(self):
        exit(3)


class ExitsInText(Exception):
    def __str__(self):
        exit(3)


class Ends:
    """What ends the program while it is pickled, by a signal handler."""

    def __reduce__(self):
        signal.raise_signal(signal.SIGTERM)
        return int, ()


CALLS = {
    "submit": lambda ex, item: ex.submit(id, item).result(),
    "options": lambda ex, item: ex.options(retries=1).submit(id, item).result(),
    "map": lambda ex, item: next(ex.map(id, [item])),
    "chunks": lambda ex, item: next(ex.map(id, [item], chunksize=2)),
    "packets": lambda ex, item: list(ex.map(abs, [1] * 5000)) and next(ex.map(id, iter([item]))),
    "actor": lambda ex, item: ex.actor(list).append(item).result(),
}


@pytest.fixture(scope="module")
def error_of_loky():
    """The class of the exception when an argument exits."""
    pytest.importorskip("joblib.externals.loky")
    end = harness.script(
        """
        from joblib.externals import loky

        class Exits:
            def __reduce__(self):
                exit(3)

        with loky.ProcessPoolExecutor(1) as executor:
            print(type(executor.submit(id, Exits()).exception()).__qualname__)
        """
    )
    return getattr(pickle, end.out.strip())


@pytest.mark.parametrize("call", CALLS)
def test_arguments_that_exit_fail_their_call(executor, call, error_of_loky):
    """As with loky; `ProcessPoolExecutor` loses such a call. An exit of a signal handler ends the program."""
    with pytest.raises(error_of_loky, match=r"called exit\(3\)"):
        CALLS[call](executor, Exits())
    assert executor.submit(abs, -1).result() == 1
    for handler in (lambda signum, frame: sys.exit(4), lambda *_: sys.exit(4)):
        previous = signal.signal(signal.SIGTERM, handler)
        try:
            with pytest.raises(SystemExit, match="4"):
                CALLS[call](executor, Ends())
        finally:
            signal.signal(signal.SIGTERM, previous)


def test_exceptions_whose_text_exits_fail_their_task(executor):
    """As with threads, which need no text: the exception arrives. `ProcessPoolExecutor` ends the whole program."""
    with concurrent.futures.ThreadPoolExecutor(1) as theirs:
        expected = theirs.submit(raise_exits_in_text).exception()
    assert type(executor.submit(raise_exits_in_text).exception()) is type(expected)


def raise_exits_in_text():
    raise ExitsInText
