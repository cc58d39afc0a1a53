"""Executors with a sandbox: what tasks can do there, and what hostile ones try in vain."""

import collections
import contextlib
import datetime
import decimal
import fractions
import io
import linecache
import os
import pickle
import platform
import resource
import signal
import subprocess
import sys
import time
import traceback

import arenite
import harness
import in_sandbox
import numpy as np
import pytest
from arenite import _arenite, _errors

on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are those of x86_64")


@pytest.fixture(scope="module")
def ex():
    with arenite.Executor(2, sandbox="strict", preload=["in_sandbox"]) as executor:
        yield harness.all_ready(executor)


def next_one_works(ex):
    """Whatever a task did, the next ones find workers."""
    harness.all_ready(ex)
    for doubled in ex.map(in_sandbox.double, [np.arange(3)] * 8):
        assert doubled.tolist() == [0, 2, 4]


# ---- honest work


@pytest.mark.parametrize("sandbox", [True, "strict", "required"])
def test_numpy_computes(sandbox):
    values = np.arange(10_000.0)
    try:
        ex = arenite.Executor(1, sandbox=sandbox, preload="in_sandbox")
    except OSError as error:
        if sandbox == "required":
            pytest.skip(str(error))
        raise
    with ex:
        inside = ex.submit(in_sandbox.compute, values, 7).result()
    assert inside == pytest.approx(in_sandbox.compute(values, 7))


def test_functions_by_value_find_numpy(ex):
    scale = 3
    assert ex.submit(lambda values: float(np.linalg.norm(values)) * scale, np.array([3.0, 4.0])).result() == 15


def test_shared_arrays_and_results_are_not_copied_by_the_task(ex):
    shared = ex.share(np.arange(100_000))
    before = ex.stats().bytes_copied
    doubled = ex.submit(in_sandbox.double_in_arena, shared).result()
    assert ex.stats().bytes_copied == before
    assert doubled[-1] == 199_998 and doubled.flags.writeable
    # Nor by the program.
    assert ex.submit(in_sandbox.double_in_arena, doubled).result()[-1] == 399_996
    assert ex.stats().bytes_copied == before
    assert [int(part.sum()) for part in ex.map(in_sandbox.double, [shared[:3], shared[::50_000]])] == [6, 100_000]


def test_pictures_are_decoded():
    Image = pytest.importorskip("PIL.Image")
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(1).integers(0, 255, (64, 48, 3), np.uint8)
    with arenite.Executor(1, sandbox=True, preload=["in_sandbox", "PIL.Image", "cv2"]) as ex:
        for kind in ("PNG", "WEBP", "BMP", "JPEG"):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
            decoded = ex.submit(in_sandbox.decode_with_pillow, file.getvalue()).result()
            assert decoded.shape == pixels.shape
            assert (decoded == pixels).all() or kind == "JPEG"
        for kind in (".png", ".jpg"):
            _, data = cv2.imencode(kind, pixels)
            decoded = ex.submit(in_sandbox.decode_with_cv2, data.tobytes()).result()
            assert decoded.shape == pixels.shape
            assert (decoded == pixels[:, :, ::-1]).all() or kind == ".jpg"


def test_what_a_sandbox_leaves(ex):
    assert ex.submit(in_sandbox.rest_of_the_sandbox).result() == [0, 1, 2, 3]


def test_prints_appear():
    lines = []
    with arenite.Executor(1, sandbox=True, preload=["in_sandbox"], output=lambda *line: lines.append(line)) as ex:
        ex.submit(in_sandbox.printed).result()
    assert ("stdout", 0, "hello from inside") in lines and ("stderr", 0, "and its errors") in lines


def test_an_actor_and_chunks(ex):
    with ex.actor(collections.Counter, "abc") as counter:
        counter.update("aab")
        assert counter.most_common(1).result() == [("a", 3)]
    assert list(ex.map(abs, range(-100, 0), chunksize=7)) == list(range(100, 0, -1))
    results = ex.map(lambda n: 1 // n, [1, 0, 1], chunksize=3)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(results) == 1


def test_memory_has_a_ceiling():
    with arenite.Executor(1, sandbox=True, preload=["in_sandbox"], memory_limit="256MiB") as ex:
        with pytest.raises(arenite.MemoryLimitExceeded):
            ex.submit(in_sandbox.grow).result()
        next_one_works(ex)


def test_a_crash_leaves_its_stack(ex):
    died = ex.submit(os.abort).exception()
    assert isinstance(died, arenite.WorkerDied) and died.signal == signal.SIGABRT
    assert any("Fatal Python error" in line for line in died.last_words)
    next_one_works(ex)


def test_several_lanes_and_recycling():
    with arenite.Executor(1, lanes=3, sandbox=True, preload=["in_sandbox"], max_tasks_per_child=5) as ex:
        results = ex.map(in_sandbox.double, [np.full(2000, n) for n in range(20)])
        assert [int(result[0]) for result in results] == [2 * n for n in range(20)]


VALUES = [
    None, True, -5, 1 << 200, 2.5, 1j, "text", "", b"bytes", bytearray(b"changed"), b"x" * 100_000,
    (), (1, (2, [3])), [1, "a", None], {"a": [1], 2: {}}, {1, 2}, frozenset("ab"), range(3), slice(1, None),
    datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=datetime.timezone.utc), datetime.date(2024, 2, 29),
    datetime.timedelta(1), decimal.Decimal("1.5"), fractions.Fraction(1, 3),
    collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1, 2], 5),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_plain_values_come_back(ex, value):
    back = ex.submit(in_sandbox.returned, value).result()
    assert back == value and type(back) is type(value)


ARRAYS = [
    np.arange(5), np.zeros((300, 40), np.float32), np.asfortranarray(np.arange(20_000.0).reshape(100, 200)),
    np.arange(10_000)[::-2], np.zeros((5, 0)), np.array(7), np.array(["a", "bc"]), np.array([b"a"]), np.arange(3, dtype=">i4"),
    np.array(["2024-01-01"], "M8[D]"), np.array([(1, 2.5)], [("a", "i4"), ("b", "f8", (2,))]), np.zeros(20_000, "u1,f4"),
    np.zeros(100_000, [("a", "i4"), ("b", "S0")]), np.zeros(2, [("a", "i4", (3, 0)), ("b", "i1")]),
    np.zeros(20_000, [("a", "i4"), *((f"b{column}", "S0") for column in range(100))]),
    np.float32(2.5), np.int64(-1), np.bool_(True), np.datetime64("2024-01-01"), np.str_("text"), np.str_(""),
]  # fmt: skip


@pytest.mark.parametrize("private", [None, "copy"])
def test_arrays_come_back(private):
    with arenite.Executor(1, sandbox=True, preload=["in_sandbox"], writable=private) as ex:
        for array, back in zip(ARRAYS, ex.map(in_sandbox.returned, ARRAYS), strict=True):
            assert type(back) is type(array)
            assert back.dtype == array.dtype or array.nbytes == 0
            assert back.shape == array.shape and str(back.tolist()) == str(array.tolist())
            if isinstance(back, np.ndarray) and back.nbytes:
                assert back.flags.writeable == (private == "copy" or back.nbytes < 4096)


# ---- what is missing, and what is refused with a word


def test_a_module_that_is_not_loaded_is_named(ex):
    error = ex.submit(in_sandbox.import_module, "sqlite3").exception()
    assert isinstance(error, ModuleNotFoundError) and error.name == "sqlite3"
    assert "preload=['sqlite3']" in str(error)


def test_a_function_of_a_module_that_is_not_loaded():
    with arenite.Executor(1, sandbox=True) as ex:
        error = ex.submit(in_sandbox.double, np.arange(3)).exception()
        assert isinstance(error, ModuleNotFoundError) and "preload=['in_sandbox']" in str(error)
        # numpy is there, because this program has imported it.
        assert ex.submit(lambda values: values + 1, np.arange(3)).result().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("task", "arguments", "words"),
    [
        (in_sandbox.open_file, ("/etc/passwd",), ["opens no files", "/etc/passwd"]),
        (in_sandbox.write_file, ("/tmp/arenite-sandbox-test-of-python",), ["opens no files"]),
        (in_sandbox.open_socket, (), ["opens no sockets"]),
        (in_sandbox.resolve, (), ["opens no sockets"]),
        (in_sandbox.run_program, (), ["starts no programs", "subprocess.Popen"]),
        (in_sandbox.execute, (), ["starts no programs", "os.exec"]),
        (os.fork, (), ["starts no processes", "os.fork"]),
        (os.system, ("true",), ["starts no programs"]),
        (os.listdir, ("/",), ["reads no folders"]),
        (in_sandbox.load_library, (), ["loads no libraries"]),
        (in_sandbox.kill_parent, (), ["sends no signals"]),
        (os.stat, ("/",), ["Permission denied"]),
        (os.mkdir, ("/tmp/arenite-sandbox-test-of-python",), ["changes no files"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_refused_says_so(ex, task, arguments, words):
    restarts = ex.stats().restarts
    error = ex.submit(task, *arguments).exception()
    assert isinstance(error, PermissionError), error
    assert all(word in str(error) for word in words), error
    assert ex.stats().restarts == restarts
    assert not os.path.exists("/tmp/arenite-sandbox-test-of-python")


def test_the_environment_has_no_secrets(monkeypatch):
    monkeypatch.setenv("DATABASE_PASSWORD", "secret 7041776")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr("sys.argv", ["program", "--password=secret 7041776"])
    given = arenite.Settings(env={"GIVEN": "yes"})
    with arenite.Executor(1, sandbox=True, preload=["in_sandbox"], settings=given) as ex:
        variables, argv = ex.submit(in_sandbox.environment).result()
    assert "secret 7041776" not in str((variables, argv))
    assert variables["GIVEN"] == "yes" and variables["OMP_NUM_THREADS"] == "1" and variables["PATH"]


def test_threads_at_the_start_are_refused_with_advice():
    def leave_thread():
        import threading

        threading.Thread(target=threading.Event().wait, daemon=True).start()

    with arenite.Executor(1, sandbox=True, initializer=leave_thread) as ex:
        error = ex.submit(abs, -1).exception()
    assert isinstance(error, arenite.StartFailed) and "OPENBLAS_NUM_THREADS" in str(error)


def test_bad_settings():
    with pytest.raises(ValueError, match="strict"):
        arenite.Executor(1, sandbox="tight")
    with pytest.raises(ValueError, match="max_workers=0"):
        arenite.Executor(0, sandbox=True)


def test_mut_is_refused(ex):
    out = ex.zeros(1000)
    error = ex.submit(double_in_place, arenite.mut(out)).exception()
    assert error is not None and "sandbox" in str(error)
    assert not out.any()


def double_in_place(values):
    values *= 2


# ---- system calls, made past Python


@on_x86
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fork", ()),
        ("execve", (b"/bin/true", None, None)),
        ("ptrace", (0, 0, 0, 0)),
        ("kill", (1, 0)),
        ("memfd_create", (b"x", 0)),
        ("mmap", (0, 4096, 7, 0x22, -1, 0)),
        ("pidfd_open", (1, 0)),
        ("io_uring_setup", (8, 0)),
        ("bpf", (0, 0, 0)),
        ("setrlimit", (0, 0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_system_calls_cost_one_task(ex, name, arguments):
    beside = ex.submit(in_sandbox.double, np.arange(3))
    died = ex.submit(in_sandbox.call, name, *arguments).exception()
    assert isinstance(died, arenite.WorkerDied) and name in str(died), died
    assert beside.result().tolist() == [0, 2, 4]
    next_one_works(ex)


@on_x86
@pytest.mark.parametrize(("name", "arguments"), [("open", (b"/etc/passwd", 0)), ("socket", (2, 1, 0))])
def test_system_calls_that_probe_are_refused(ex, name, arguments):
    assert ex.submit(in_sandbox.call, name, *arguments).result() == (-1, 13)


def test_an_input_cannot_be_written(ex):
    shared = ex.share(np.arange(100_000))
    error = ex.submit(in_sandbox.sets_writeable, shared).exception()
    assert isinstance(error, ValueError)
    died = ex.submit(in_sandbox.write_to, shared).exception()
    assert isinstance(died, arenite.WorkerDied) and died.signal == signal.SIGSEGV
    assert (shared == np.arange(100_000)).all()
    next_one_works(ex)


# ---- what a worker sends that hostile code has taken over


@pytest.mark.parametrize("attack", [in_sandbox.hostile_value, in_sandbox.hostile_error])
def test_a_pickle_that_calls_something_is_not_read(tmp_path, attack):
    path = tmp_path / "made by the program"
    with arenite.Executor(1, sandbox=True, preload=["in_sandbox"]) as ex:
        # Its own reply is hostile already, and so are all later ones.
        error = ex.submit(attack, str(path)).exception()
        assert "builtins.exec" in str(error), error
        with pytest.raises((pickle.UnpicklingError, arenite.RemoteError), match="builtins.exec"):
            ex.submit(divmod, 1, 0 if attack is in_sandbox.hostile_error else 1).result()
        with pytest.raises((pickle.UnpicklingError, arenite.RemoteError), match="builtins.exec"):
            list(ex.map(divmod, [1, 1], [1, 0], chunksize=2))
    assert not path.exists()


def array_of(data, description, shape=(1,), order="C", strides=None, start=0):
    return in_sandbox.Bomb(_plain()._array, (data, description, shape, order, strides, start))


def _plain():
    from arenite._core import plain

    return plain


HOSTILE = {
    "a call by name": b"\x80\x05\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "the old opcode of the same": b"cposix\nsystem\n(S'true'\ntR.",
    "an instance": b"(S'true'\niposix\nsystem\n.",
    "a change of an object": b"\x80\x05\x8c\x08builtins\x8c\x07complex\x93}\x8c\x01a\x8c\x01bsb.",
    "a new object": b"\x80\x05\x8c\x08builtins\x8c\x07complex\x93)\x81.",
    "an extension": b"\x80\x05\x82\x01.",
    "a persistent object": b"\x80\x05\x8c\x01aQ.",
    "an entry far out": b"\x80\x05Nr\xff\xff\xff\x7f.",
    "a length beyond the end": b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
    "no end": b"\x80\x05N",
    # Read as it stands it is text and harmless. Over the end of the frame the unpickler goes on elsewhere.
    "an opcode over the end of a frame": b"\x80\x05\x95\x05\0\0\0\0\0\0\0\x8d\x14" + b"\0" * 7 + b"a" * 20 + b".",
    "a frame in a frame": b"\x80\x05\x95\x0b\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0N0N.",
    "a frame beyond the end": b"\x80\x05\x95\xff\0\0\0\0\0\0\0N.",
    "nothing": b"",
    "an empty stack": b"\x80\x05.",
    "attributes of what is called": b"\x80\x05\x8c\x14arenite._core.raised\x8c\x0fRaised.__init__\x93.",
    "an array beyond its data": pickle.dumps(array_of(b"1234", "<i8"), 5),
    "an array with one place too many": pickle.dumps(array_of(bytes(64), "<f8", (5,), None, (16,)), 5),
    "an array before its data": pickle.dumps(array_of(b"12345678" * 4, "<i8", (2,), None, (-8,), 0), 5),
    "an array whose places wrap around": pickle.dumps(array_of(bytes(64), "<f8", (5,), None, (1 << 62,)), 5),
    "an array of objects": pickle.dumps(array_of(b"12345678", "O"), 5),
    "a structure with objects": pickle.dumps(array_of(b"12345678", [("a", "O")]), 5),
    "a list that contains itself": b"\x80\x05]\x94h\x00a.",
    "a list that is filled where it is part of another one": b"\x80\x05]\x94(]\x94h\x01h\x01Nae.",
    "a range of text": b"\x80\x05\x8c\x08builtins\x8c\x05range\x93\x8c\x01a\x85R.",
    "an exception that ends the program": pickle.dumps(
        in_sandbox.Bomb(_plain()._exception, ("builtins", "SystemExit", (), {})), 5
    ),
    "an array over data that can grow": pickle.dumps(array_of(bytearray(8), "<i8"), 5),
    "no exception": pickle.dumps(in_sandbox.Bomb(_plain()._exception, ("builtins", "exec", ("1",), {})), 5),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_pickles(ex, what):
    error = ex.submit(in_sandbox.raw_reply, HOSTILE[what]).exception()
    assert isinstance(error, Exception), error
    next_one_works(ex)


def call(module, name, *arguments):
    """Opcodes of a call."""
    return text(module) + text(name) + b"\x93(" + b"".join(arguments) + b"tR"


def text(content):
    data = content.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def integer(value):
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + len(data).to_bytes(4, "little") + data


def array_of_zeros(count, description, *rest):
    data = b"B" + count.to_bytes(4, "little") + bytes(count)
    return call("arenite._core.plain", "_array", data, description, *rest)


def array(description, *rest):
    return array_of_zeros(8, description, *rest)


def exception(name, *arguments):
    return call("arenite._core.plain", "_exception", text("builtins"), text(name), b"(" + b"".join(arguments) + b"t", b"}")


def exceptions_in(levels):
    made = exception("ValueError")
    for _ in range(levels):
        made = exception("ExceptionGroup", text("all"), b"](" + made + b"e")
    return made


def walking(count):
    """Integers with different hashes, for which a dictionary looks at thousands of places each."""
    size, at, taken = 1 << 14, 1, []
    while len(taken) < 5600:
        taken.append(at)
        at = (5 * at + 1) % size
    keys, taken, key = list(taken), set(taken), size
    while len(keys) < 5600 + count:
        key += 1
        at, rest, steps = key % size, key, 0
        while at in taken:
            steps, rest = steps + 1, rest >> 5
            at = (5 * at + rest + 1) % size
        if steps > 2500:
            keys.append(key)
            taken.add(at)
    return keys


LONG_RANGE = call("builtins", "range", integer(0), integer(10**12), integer(1))
#: Limits: what reading or using the value would take, and a word of what is said.
COSTLY = {
    "a deep tuple": (b")" + b"\x85" * 1_000_000, "100 levels"),
    "a deep tuple as a key": (b"}" + b")" + b"\x85" * 1_000_000 + b"Ns", "100 levels"),
    "a deep tuple in a set": (b"(" + b")" + b"\x85" * 1_000_000 + b"\x91", "100 levels"),
    "deep lists": (b"]" * 20_000 + b"a" * 19_999, "100 levels"),
    "deep exceptions": (exceptions_in(60), "100 levels"),
    "a tuple of itself twice, as a key": (
        b"}" + b")\x94" + b"".join(b"h%c\x86\x94" % number for number in range(64)) + b"Ns", "shared object"),
    "a tuple of itself twice": (b")\x94" + b"".join(b"h%c\x86\x94" % number for number in range(64)), "shared object"),
    "a long key again and again": (
        b"(" + b"N" * 100_000 + b"t\x94}(" + b"h\x00N" * 10_000 + b"u", "elements"),
    "keys with the same hash": (
        b"}(" + b"".join(integer(number * ((1 << 61) - 1)) + b"N" for number in range(20_000)) + b"u", "collide"),
    "keys that are looked for in the same places": (
        b"}(" + b"".join(integer(key) + b"N" for key in walking(700)) + b"u", "collide"),
    "members with the same hash": (
        b"\x8f(" + b"".join(integer(number * ((1 << 61) - 1)) for number in range(20_000)) + b"\x90", "collide"),
    "frozen members with the same hash": (
        b"(" + b"".join(integer(number * ((1 << 61) - 1)) for number in range(20_000)) + b"\x91", "collide"),
    "a deque of a number": (call("collections", "deque", LONG_RANGE), "deque"),
    "a Counter of a number": (call("collections", "Counter", LONG_RANGE), "counter"),
    "a Counter of a dictionary": (call("collections", "Counter", b"}"), "counter"),
    "an OrderedDict of a number": (call("collections", "OrderedDict", LONG_RANGE), "ordered_dict"),
    "a Fraction of a text": (call("fractions", "Fraction", text("1e999999999")), "fraction"),
    "a Fraction of a Decimal": (
        call("fractions", "Fraction", call("decimal", "Decimal", text("1e99999999")), integer(1)), "Fraction"),
    "a Fraction of long integers": (call("fractions", "Fraction", integer(3**20_000), integer(7**20_000)), "bits"),
    "a range of long integers": (
        call("builtins", "range", integer(0), integer(1 << 400_000), integer(1 << 200_000)), "bits"),
    "a long integer that is compared with numbers": (
        b"(" + b"".join(
            b"}(" + (integer(7 + ((1 << 61) - 1) * (1 << 400_000)) + b"\x94" if not turn else b"h\x00") + b"N"
            + b"".join(
                call("decimal", "Decimal", text(str(7 + ((1 << 61) - 1) * number))) + b"N" for number in range(400)) + b"u"
            for turn in range(20)) + b"t", "elements"),
    "a long integer": (integer(1 << 600_000), "integer of"),
    "an array of stride 0": (
        array(text("<f8"), integer(2**33) + b"\x85", b"N", integer(0) + b"\x85", integer(0)), "for 8 bytes"),
    "an array without memory": (array(text("|V0"), integer(2**40) + b"\x85", text("C")), "for 8 bytes"),
    "an element with many empty rows": (
        array(b"]((" + text("f") + text("<i4") + integer(2**20) + integer(0) + b"\x86te", b")", text("C")),
        "for 8 bytes"),
    "an element with empty rows in rows": (
        array((b"]((" + text("f")) * 3 + text("<i4") + integer(2**8) + integer(0) + b"\x86te"
              + (integer(2**8) + b"\x85te") * 2, b")", text("C")), "for 8 bytes"),
    "an element with many columns without memory": (
        array(b"](" + b"".join(
            text(f"f{number}") + text("|V0" if number else "|i1") + b"\x86" for number in range(10_000)) + b"e",
            integer(8) + b"\x85", text("C")), "for 8 bytes"),
    "a text beyond Unicode": (
        call("arenite._core.plain", "_scalar", b"C\x04\x00\x00\x2a\x00", text("<U1")), "characters that are none"),
    "an array of another array": (array(text("(2000000000)f8"), b")", text("C")), "type"),
    "an array of a deep type": (array((b"]((" + text("f")) * 60 + text("<f8") + b"te" * 60, b")", text("C")), "100 levels"),
    "an array of a type in brackets": (array(text("(" * 200_000 + "f8"), b")", text("C")), "type"),
    "many empty sets": (b"(" + b"\x8f" * 2_000_000 + b"t", "bytes of memory"),
    "a date on day 0": (call("datetime", "date", b"C\x04\x00\x00\x01\x01"), "date"),
    "a time at hour 255": (call("datetime", "time", b"C\x06\xff" + bytes(5)), "time"),
    "an error that ends an iteration": (exception("StopIteration", integer(1)), "exception"),
    "a syntax error with a number of numpy": (
        exception("SyntaxError", text("x"), b"(" + text("f") + integer(1) + integer(1) + text("y") + integer(1)
                  + call("arenite._core.plain", "_scalar", b"C\x08" + (2 * 10**8).to_bytes(8, "little"), text("<i8")) + b"t"),
        "place"),
    "a syntax error far to the right": (
        exception("SyntaxError", text("x"), b"(" + text("f") + integer(1) + integer(1) + text("y") + integer(1) + integer(10**12)
                  + b"t"), "place"),
    "an error of a text, outside of it": (
        exception("UnicodeDecodeError", text("utf-8"), b"C\x01a", integer(-(10**9)), integer(10**9), text("why")), "place"),
}  # fmt: skip


@pytest.mark.parametrize("what", COSTLY)
def test_costly_pickles_are_refused(what):
    """In the time and memory of their length. In the program's own process: it would not survive them."""
    data, word = COSTLY[what]
    before = time.thread_time()
    with pytest.raises(Exception, match=word) as caught:
        _plain().load(b"\x80\x05" + data + b".")
    print(f"{time.thread_time() - before:.3f} s")
    assert not isinstance(caught.value, (MemoryError, RecursionError, SystemError))


EMPTY_ROWS = array(b"]((" + text("f") + text("|i1") + integer(65536) + integer(0) + b"\x86te", b")", text("C"))
ESCAPED_TEXT = text("\x1b" * 48_000 + "\U0001f600")
#: Exceptions whose text would take long, or much memory.
LONG_TO_SHOW = {
    "empty rows twice, twice, …": exception(
        "ValueError", EMPTY_ROWS + b"".join(b"\x94h%c\x86" % number for number in range(12))),
    "an array often": exception(
        "ValueError", b"](" + array_of_zeros(1000, text("|u1"), integer(1000) + b"\x85", text("C")) + b"\x94"
        + b"h\x00" * 9000 + b"e"),
    "an array in a set in a slice": exception(
        "KeyError", call("builtins", "slice", b"N", b"N", b"(" + EMPTY_ROWS + b"t")),
    "rows that are not summarized": exception(
        "ValueError", array_of_zeros(
            1 << 21, b"]((" + text("f") + text("|u1") + integer(1 << 21) + b"\x85te", b")", text("C"))
        + b"\x94h\x00h\x00h\x00"),
    "an array of many axes": exception(
        "ValueError", array_of_zeros(1 << 18, text("|u1"), b"(" + integer(2) * 18 + b"t", text("C"))
        + b"\x94" + b"h\x00" * 15),
    "arrays in an error in a list": exception(
        "ValueError", b"](" + exception(
            "ValueError", array_of_zeros(1000, text("|u1"), integer(1000) + b"\x85", text("C"))
            + b"\x94" + b"h\x00" * 15)
        + b"\x94" + b"h\x01" * 500 + b"e", b"C\xff" + bytes(255)),
    "an escaped text in many places": exception(
        "OSError", integer(2), text("x"), b"(" + ESCAPED_TEXT + b"\x94" + b"h\x00" * 60 + b"t"),
    "an escaped name often": b"(" + ESCAPED_TEXT + b"\x94" + call(
        "arenite._core.plain", "_exception", text("builtins"), text("ValueError"), b")",
        b"}" + text("name") + b"h\x00s") * 60 + b"t",
    "a long integer": exception("ValueError", integer(10**5000)),
    "a fraction of long integers": exception(
        "ValueError", call("fractions", "Fraction", integer(7**5500), integer(2))),
    "a long escaped text often": b"(" + ESCAPED_TEXT + b"\x94" + exception("ValueError", b"h\x00") * 200 + b"t",
    "a long escaped note often": b"(" + ESCAPED_TEXT + b"\x94" + call(
        "arenite._core.plain", "_exception", text("builtins"), text("ValueError"), b")",
        b"}" + text("__notes__") + b"](" + b"h\x00" * 200 + b"es") + b"t",
    "escaped text in a list often": exception("ValueError", b"](" + ESCAPED_TEXT + b"\x94" + b"h\x00" * 600 + b"e"),
}  # fmt: skip


def test_exceptions_are_read_and_shown_in_little_time():
    code = f"""
import resource, sys, time, traceback
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
import numpy
from test_sandbox import LONG_TO_SHOW, _plain

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for what, pickle in LONG_TO_SHOW.items():
    print(what, file=sys.stderr)
    before = peak()
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 15, resource.RLIM_INFINITY))
    try:
        value = _plain().load(b"\\x80\\x05" + pickle + b".")
    except Exception as error:
        assert "memory" in str(error) or "arguments" in str(error), error
    else:
        for error in value if type(value) is tuple else (value,):
            if isinstance(error, Exception):
                assert len(str(error)) + len("".join(traceback.format_exception(error))) < 100_000_000
    assert peak() - before < 400 << 10, f"{{peak() - before}} KiB"
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_arguments_of_exceptions_stay(ex):
    for arguments in [
        ("text", 3, 2.5, None, True, b"\x1b", 1j), (["\x1b", {"a": (1, 2)}],), ({1, 2}, frozenset("a")),
        (range(3), slice(1, None), collections.deque([1], 3)), (decimal.Decimal("1.5"), fractions.Fraction(1, 3)),
        (datetime.date(2024, 2, 29), datetime.datetime(1, 1, 1, 23, 59, 59, 999_999, datetime.timezone.utc, fold=1)),
        (list(range(100_000)),), (10**4000,), ("missing", list(np.arange(20))),
        (collections.Counter("aab"), collections.OrderedDict(a=1)),
    ]:  # fmt: skip
        error = ex.submit(in_sandbox.raise_error, KeyError(*arguments)).exception()
        assert type(error) is KeyError and error.args == arguments and repr(error.args) == repr(arguments)
    error = ex.submit(in_sandbox.raise_error, ValueError(*ARRAYS[:12])).exception()
    assert str(error) == str(ValueError(*ARRAYS[:12]))
    try:
        compile("a b", "/tmp/folder/module.py", "exec")
    except SyntaxError as raised:
        error = ex.submit(in_sandbox.raise_error, raised).exception()
        assert str(error) == str(raised).replace("module.py", "<module.py>") and error.text == raised.text
    group = ExceptionGroup("all", [ValueError(number) for number in range(1000)])
    assert len(ex.submit(in_sandbox.raise_error, group).exception().exceptions) == 1000


@pytest.mark.parametrize("nbytes", [200_000, 8 << 20])
def test_one_array_many_times_is_one(nbytes):
    """Each reference to an array becomes a copy: of a large one, pages are copied when the program writes to them."""
    with arenite.Executor(1, sandbox="strict", preload=["in_sandbox"]) as ex:
        ex.submit(in_sandbox.one_array_often, 4, nbytes).result()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        many = ex.submit(in_sandbox.one_array_often, 16 << 30, nbytes)
        assert "bytes of memory" in str(many.exception()), many
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 2 << 20


def test_views_of_one_array_are_independent(ex):
    """What a program gets of views that overlap a little, in workers without and with a sandbox."""

    def views():
        whole = np.arange(600_000.0)
        return [whole[first:] for first in range(0, 5000, 1000)]

    found = ex.submit(views).result()
    with arenite.Executor(1) as others:
        for ours, other in zip(found, others.submit(views).result(), strict=True):
            assert np.array_equal(ours, other)
            ours[:] = -1
    assert all((ours == -1).all() for ours in found)


def test_a_long_reply_stops_nobody():
    """A pickle without effect is refused; meanwhile other threads run, and Ctrl-C ends the wait."""
    code = """
    import signal, sys, threading, time
    import arenite

    def attack(count):
        from arenite._core import worker

        worker._dump_value = lambda value: (bytes([128, 5]) + b"}" + b"(u" * count + b".", None, 0)

    ran, reading = 0, threading.Event()

    def run():
        global ran
        reading.wait()
        while reading.is_set():
            ran += 1
            if ran == 1000 and "interrupt" in sys.argv:
                signal.raise_signal(signal.SIGINT)

    def outcome(future):
        try:
            return future.result()
        except BaseException as error:
            return type(error).__name__, str(error)

    with arenite.Executor(1, sandbox="strict", capacity="2GiB") as ex:
        future = ex.submit(attack, 100_000_000)
        while not future.done():
            time.sleep(0.01)
        thread = threading.Thread(target=run)
        thread.start()
        reading.set()
        print(*outcome(future))
        reading.clear()
        thread.join()
        print(ran > 1000)
    """
    lines = harness.script(code).ok().out.splitlines()
    assert "takes more than 67108864 steps to read" in lines[0] and lines[1:] == ["True"], lines
    lines = harness.script(code, "interrupt").ok().out.splitlines()
    assert lines[0].startswith("KeyboardInterrupt"), lines


def test_a_worker_does_not_make_up_statistics(ex):
    before = ex.stats().bytes_copied
    assert ex.submit(in_sandbox.raw_reply, b"\x80\x05N.", 1 << 62).result() is None
    assert ex.stats().bytes_copied == before


def test_a_costly_value_costs_one_task(ex):
    error = ex.submit(in_sandbox.raw_reply, b"\x80\x05" + COSTLY["a deep tuple as a key"][0] + b".").exception()
    assert "more than 100 levels deep" in str(error) and "return arrays" in str(error), error
    next_one_works(ex)


@pytest.mark.parametrize(
    "value",
    [
        list(range(100_000)),
        {number: str(number) for number in range(100_000)},
        {(row, column) for row in range(300) for column in range(300)},
        frozenset(number << 40 for number in range(50_000)),
        {number / 8 for number in range(50_000)},
        {-number * 1_000_003: None for number in range(50_000)},
        [{"name": "x", "place": (number, number + 1)} for number in range(30_000)],
        collections.Counter(number % 1000 for number in range(100_000)),
        [("one", "row")] * 50_000,
        [[]] * 1000,
        [set() for _ in range(50_000)],
        "ä" * 100_000,
        3**100_000,
        fractions.Fraction(3**5000, 2**5000),
        [datetime.datetime(2024, 2, 29, n % 24) for n in range(5000)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_large_values_come_back(value):
    data, _, _ = _plain().dump(value, None)
    back = _plain().load(data)
    assert back == value and type(back) is type(value)
    # As `pickle` reads it.
    assert pickle.loads(data) == back


def test_a_value_that_contains_itself(ex):
    for make in (in_sandbox.list_in_itself, in_sandbox.dict_in_itself, in_sandbox.tuple_in_itself):
        error = ex.submit(make).exception()
        assert "contains itself" in str(error) and "without a sandbox" in str(error), error
    next_one_works(ex)


def test_arrays_whose_elements_share_memory(ex):
    shared = ex.share(np.arange(1000.0))
    back = ex.submit(in_sandbox.broadcast, shared, 50).result()
    assert back.shape == (50, 1000) and (back == np.arange(1000.0)).all()


def test_parts_of_arrays(ex):
    whole = ex.share(np.arange(60_000).reshape(30, 20, 100))
    for part in (whole[:1, :1], whole[3:, ::-2, 5:6], whole[::7, 4:5, ::-1], whole.T[1:2], whole[2, 3, 4:4]):
        back = ex.submit(in_sandbox.returned, part).result()
        assert back.shape == part.shape and (back == part).all()


@pytest.mark.parametrize("output", ["labelled", "plain"])
def test_no_text_of_a_task_acts_on_a_terminal(output):
    """Exceptions with their notes, arguments and tracebacks, and lines."""
    bad = "\x1b[2J\x9b\x7f\u202e\u2066\u200f\u061c\u2028"
    errors = [
        ValueError(bad), KeyError(bad), OSError(2, bad, bad), ExceptionGroup(bad, [ValueError(bad)]), UnicodeError(bad),
        UnicodeDecodeError(bad, b"x", 0, 1, bad), SyntaxError(bad, (bad, 1, 1, bad)), ImportError(bad, name=bad), Own(bad),
        ValueError((bad, [bad])), ValueError(np.array(bad)), ValueError(datetime.timezone(datetime.timedelta(), bad)),
        SyntaxError("bad", (np.str_(f"{bad}/f"), 1, 1, np.str_(bad))), OSError(2, np.array(bad)),
    ]  # fmt: skip
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        with arenite.Executor(1, sandbox=True, preload=["in_sandbox"], output=output) as ex:
            for error in errors:
                error.add_note(bad)
                got = ex.submit(in_sandbox.raise_error, error).exception()
                traceback.print_exception(got)
                print(f"{got}|{got.__cause__}|{getattr(got, '__notes__', '')}")
            ex.submit(print, bad).result()
    shown = printed.getvalue()
    assert "1b[2J" in shown and not set(bad) & set(shown) - set("[2J"), ascii(shown)


def test_plain_python_escapes_what_the_engine_escapes():
    """`_errors.py` has a table of its own because a client of a service needs no extension."""
    for first in set(range(0, 0x110000, 256)) - set(range(0xD800, 0xE000, 256)):
        text = "".join(map(chr, range(first, first + 256)))
        assert _errors.shown(text) == _arenite.escape(text)


@pytest.mark.parametrize(
    "data",
    [
        call("\x1b[2J", "\u202e"),
        call("builtins", "\x9b2J"),
        # Its text cannot be made, and its place is shown all the same.
        exception("SyntaxError", integer(10**5000), b"(" + text("\x1b") + integer(1) * 2 + text("\x1b") + b"t"),
        exception("ValueError", call("datetime", "timezone", call("datetime", "timedelta"), text("\x1b"))),
    ],
    ids=["module", "name", "place", "zone"],
)
def test_no_pickle_acts_on_a_terminal(data):
    """Neither the exception that it has, nor that of reading it."""
    try:
        error = _plain().load(b"\x80\x05" + data + b".")
    except Exception as refused:
        error = refused
    printed = io.StringIO()
    with contextlib.suppress(ValueError):
        # An integer that is too long to be shown.
        traceback.print_exception(error, file=printed)
    assert not any(map(acts_on_a_terminal, printed.getvalue())), ascii(printed.getvalue())


def test_no_exception_names_a_file_that_is_read():
    """As Python 3.14 does to find a typing error, if the place of a syntax error has a seventh part."""
    place = text("/dev/zero") + integer(1) * 2 + text("a") + integer(1) * 2 + b"(" + integer(1) * 2 + b"Nt"
    error = _plain().load(b"\x80\x05" + exception("SyntaxError", text("invalid syntax"), b"(" + place + b"t") + b".")
    # `linecache`, which notebooks use, reads no file with such a name.
    assert error.filename == "<zero>" and linecache.getlines(error.filename) == []
    assert len(error.args[1]) == 6 and not getattr(error, "_metadata", None)


def acts_on_a_terminal(character):
    return character in "\x1b\x9b\u202e"


class Own(Exception):
    pass


def test_any_bytes_are_a_value_or_an_error():
    """Pickles with some bytes changed."""
    load, dump = _plain().load, _plain().dump
    whole = [dump(value, None)[0] for value in [*VALUES, *ARRAYS, ValueError("x"), [np.arange(4), {"a": (1.5, "b")}]]]
    random = np.random.default_rng(5)
    errors = 0
    for data in whole:
        for _ in range(60):
            changed = bytearray(data[:2000])
            for at in random.integers(0, len(changed), 3):
                changed[at] = random.integers(0, 256)
            try:
                load(bytes(changed))
            except Exception:
                errors += 1
    assert errors > 100


def test_objects_of_classes_do_not_come_back(ex):
    for value in (in_sandbox.Point(1, 2), Exception, print, lambda: 1, np.array([object()]), np.ma.ones(3)):
        error = ex.submit(lambda value: value, value).exception()
        assert isinstance(error, (TypeError, arenite.RemoteError)) and "sandbox" in str(error), error
    next_one_works(ex)



@pytest.mark.parametrize(
    "error",
    [ValueError("a", 1), OSError(2, "no", "file"), KeyError("k"), ExceptionGroup("both", [ValueError("x"), KeyError(1)]),
     UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "invalid start byte"), SyntaxError("bad", ("<string>", 1, 3, "1 +", 1, 3)),
     SyntaxError("only a text"), UnicodeError("only a text"), ImportError("no", name="module")],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_arrive(ex, error):
    error.add_note("noted")
    got = ex.submit(in_sandbox.raise_error, error).exception()
    assert type(got) is type(error) and str(got) == str(error) and got.__notes__ == ["noted"]
    assert "raise_error" in str(got.__cause__)


def test_exceptions_that_are_not_plain_are_described(ex):
    class Own(Exception):
        pass

    for error in (Own("what it says"), SystemExit(3), KeyboardInterrupt("x")):
        got = ex.submit(in_sandbox.raise_error, error).exception()
        assert type(got) is arenite.RemoteError and type(error).__name__ in str(got), got
    assert harness.children()
