"""The program of a worker: its start, and one task after the other.

Imports little: a worker is ready when this module is loaded, and tasks import what they need.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
import sys
import time

from .. import _arenite
from . import context, imports, libraries, main, mirror, pickling, printing, process, raised

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable
    from typing import Any, NoReturn
else:
    import _pickle as pickle

#: Functions that this worker has loaded, by their pickle or its digest, and the places of functions with a name.
_functions: dict[bytes, Any] = {}
#: The seconds after which a packet begins no further call. The program closes the journal earlier, unless it is
#: stopped.
_LONGEST_PACKET = 1.0
#: The largest number of buffers in a result: the engine allows 4096, and one of them may be the pickle.
_MOST_BUFFERS = 4000

_arena: _arenite.TaskArena | None = None
#: Whether tasks get private copies of their arguments.
_private = False
#: Whether they get private copies of arrays in the values of other tasks.
_private_values = False
_is_sandboxed = False
#: Pickles values for the program. Arguments: a value, the arena for its buffers, and whether the program gets private
#: copies.
_dump: Callable[..., tuple[bytes, list[Any], int]] = pickling.dump


#: Whether this process is a template or a copy of one.
_is_loaded = False
#: Exit handlers that code of the template has registered. They run in the template, not in its copies.
_exit_handlers: list[Callable[..., object]] = []


def load(setup: bytes) -> str | None:
    """Makes this process a template: loads the modules and data for all workers. Returns the error, or None."""
    global _is_loaded
    _is_loaded = True
    given = pickle.loads(setup)
    if given["is_forked"]:
        _leave_program()
    else:
        mirror.clear_main()
        sys.argv[:] = given["argv"]
        _set_streams()
    context.begin(given["path"], given["filters"])
    if given["main"] is not None:
        with printing.prefixed(given["prefix"]):
            _begin_main(given["main"])
    register = atexit.register

    def noting(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        _exit_handlers.append(function)
        return register(function, *args, **kwargs)

    atexit.register = noting  # type: ignore[assignment]
    try:
        for name in given["preload"]:
            __import__(name)
        _call_marked(given)
        if given["sandboxed"]:
            from . import sandbox

            sandbox.prepare()
    except BaseException as error:
        import traceback

        return "".join(traceback.format_exception_only(error)).strip()[:1000]
    finally:
        atexit.register = register
    # Otherwise each copy would write the buffered output.
    flush()
    imports.note_loaded()
    # Freezes existing objects: collections in copies do not write to them, so their pages remain shared.
    if not given["is_forked"]:
        gc.collect()
    gc.freeze()
    return None


def _leave_program() -> None:
    """In a copy of the program: drops what only the program does at its end, and opens the streams of a worker."""
    import atexit

    main.fork()
    atexit._clear()
    for name, part in (("threading", "_threading_atexits"), ("multiprocessing.util", "_finalizer_registry")):
        if name in sys.modules:
            getattr(sys.modules[name], part).clear()
    from . import tools

    tools.leave()
    renew()
    for number, stream in ((1, "stdout"), (2, "stderr")):
        made = open(number, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, stream, made)
        setattr(sys, f"__{stream}__", made)
    sys.stdin = open(os.devnull)  # noqa: SIM115


def _begin_main(given: tuple[Any, ...]) -> None:
    """Runs the main file. Its exit handlers are the program's: no worker runs them."""
    import atexit

    register = atexit.register
    atexit.register = lambda function, *_, **__: function  # type: ignore[assignment]
    try:
        mirror.begin_main(*given)
    finally:
        atexit.register = register
    flush()


def _call_marked(given: dict[str, Any]) -> None:
    """Calls the functions that `before_fork` has marked."""
    if given["definitions"] is not None:
        mirror.apply(given["definitions"], [], False)
    if given["calls"] is not None:
        for function in pickle.loads(given["calls"])[0]:
            function()


def _set_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A pipe is block-buffered, but lines should appear at once.
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def renew() -> None:
    """In a copy of a template: drops exit handlers, which the template runs, and reseeds random number generators,
    which would be equal in all copies. `random` reseeds itself."""
    for function in _exit_handlers:
        atexit.unregister(function)
    weakref = sys.modules.get("weakref")
    if weakref is not None:
        for info in weakref.finalize._registry.values():
            info.atexit = False
    for name, seed in (("numpy.random", "seed"), ("torch", "seed")):
        module = sys.modules.get(name)
        if module is not None:
            getattr(module, seed)()


def start(setup: bytes) -> str | None:
    """Prepares this process. Returns the reason why it cannot be a worker, or None."""
    global _arena, _private, _private_values, _is_sandboxed, _dump
    if not _is_loaded:
        mirror.clear_main()
    given = pickle.loads(setup)
    if given["tools"]:
        from . import tools

        tools.join(given["tools"])
    mirror.program = given["lookups"]
    if given["hash_seed"] is None:
        # Processes that tasks start choose their own seed: this process has an invented one.
        os.environ.pop("PYTHONHASHSEED", None)
    else:
        os.environ["PYTHONHASHSEED"] = given["hash_seed"]
    sys.argv[:] = given["argv"]
    if not _is_loaded:
        _set_streams()
    if given["output"] is not None:
        printing.redirect(given["output"])
    if given["bars"] is not None:
        printing.show_bars(given["bars"])
    # Descriptor 2, not `sys.stderr`: the engine reads the traceback.
    faulthandler.enable(2)
    _arena = _arenite.TaskArena()
    pickling.Beside.most = _MOST_BUFFERS
    _private, _private_values = given["private"], given["private_values"]
    _is_sandboxed = given["sandboxed"]
    context.begin(given["path"], given["filters"], _is_loaded)
    if given["main"] is not None and not _is_loaded:
        _begin_main(given["main"])
    pickling.load_value = _load_value
    libraries.begin(*given["libraries"])
    if not _is_sandboxed:
        process.name_process(given["key"])
        process.prepare_forks()
    try:
        for name in given["preload"]:
            __import__(name)
        if given["template"] is not None and not _is_loaded:
            # This worker is not copied from a template, so it does the template's work.
            _call_marked(pickle.loads(given["template"]))
        if given["definitions"] is not None:
            mirror.apply(given["definitions"], [], _private)
        if given["initializer"] is not None:
            function, arguments = pickle.loads(given["initializer"])
            libraries.renew()
            function(*arguments)
            libraries.take_over()
            if _arenite.is_forked():
                _leave(None)
        if given["imports"] is not None:
            imports.begin(*given["imports"])
        if given["log"] is not None:
            _forward_log(*given["log"])
        if given["sandboxed"]:
            from . import plain as _plain
            from . import sandbox

            sandbox.prepare()
            sandbox.close()
            _dump = _plain.dump
    except BaseException as error:
        if _arenite.is_forked():
            _leave(error)
        import traceback

        text = "".join(traceback.format_exception(error))
        sys.stderr.write(text)
        flush()
        return f"its initializer raised {type(error).__name__}: {error}\n{text}"
    raised.begin(_private, given["memory_limit"], _dump)
    flush()
    return None


def _forward_log(*how: Any) -> None:
    """Forwards records of `logging` to the program, after a task has imported it."""

    def install(_: object) -> None:
        from . import log

        log.install(*how)

    process.after_import("logging", install)


def enter_thread() -> None:
    """Does in a thread of the engine what Python does in its own threads."""
    threading = sys.modules.get("threading")
    hooks = ("_trace_hook", sys.gettrace, sys.settrace), ("_profile_hook", sys.getprofile, sys.setprofile)
    for name, present, begin in hooks:
        hook = getattr(threading, name, None)
        if hook is not None and present() is None:
            begin(hook)  # type: ignore[operator]
    libraries.renew()


def _renew() -> None:
    """Called before a task, when all that it needs is imported: an import may have changed what the program has set."""
    context.renew()
    libraries.renew()


def end() -> None:
    """Does what Python does at its end: waits for threads, runs exit handlers, and flushes files. The process then ends
    without freeing objects."""
    if _is_sandboxed:
        return
    threading: Any = sys.modules.get("threading")
    for step in (threading and threading._shutdown, _run_exit_handlers, _flush_files):
        try:
            if step is not None:
                step()
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    flush()


def _leave(error: BaseException | None) -> NoReturn:
    """Ends a process that a task has forked, when the task's function is left there, as `multiprocessing` ends its
    processes: the process has no memory of the engine, and the worker itself goes on with the task."""
    code = 0
    try:
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            code = error.code or 0
        elif error is not None:
            code = 1
            if isinstance(error, SystemExit):
                print(error.code, file=sys.stderr)
            else:
                sys.excepthook(type(error), error, error.__traceback__)
        threading: Any = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
        flush()
    finally:
        os._exit(code & 0xFF)


def _run_exit_handlers() -> None:
    atexit._run_exitfuncs()


def _flush_files() -> None:
    import io

    try:
        objects = gc.get_objects()
    except MemoryError:
        # Objects of a task, in cycles.
        gc.collect()
        objects = gc.get_objects()
    for found in objects:
        # Not `isinstance`, which reads `__class__`: that may run code of the program, which loads modules.
        if issubclass(type(found), (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)):
            try:
                if not found.closed and found.writable():
                    found.flush()
            except (OSError, ValueError):
                pass  # A pipe that nobody reads, or a file that was closed meanwhile.


def flush() -> None:
    """Flushes the output of the task, so that it is attributed to the task."""
    try:
        sys.stdout.flush()
        getattr(sys.stderr, "end_task", sys.stderr.flush)()
    except (AttributeError, MemoryError, OSError, ValueError):
        pass  # The task has closed or replaced them, or uses all memory.


def run(function: bytes, arguments: Any, kind: int, buffers: list[Any]) -> tuple[Any, ...]:
    """Runs one task. Returns the pickle of its value, its buffers and the number of bytes copied; or the text and the
    pickle of its exception."""
    try:
        imports.end()
        if kind & context.PRECEDED:
            function = context.split(function)
        if kind & pickling.PACKED:
            return _run_packet(function, arguments, kind, buffers)
        if kind & (pickling.MANY | pickling.MANY_TUPLES):
            value: Any = _run_many(function, arguments, kind, buffers)
        else:
            call, positional, named = _load_call(function, arguments, kind, buffers)
            del arguments, buffers
            if kind & context.TIMED:
                _arenite.begin_timed()
            value = call(*positional, **named)
            del call, positional, named
        imports.note()
        return _dump_value(value)
    except BaseException as error:
        # The memory may not suffice to pickle the value.
        value = None
        return dump_error(error)
    finally:
        flush()


def _dump_value(value: Any) -> tuple[Any, ...]:
    if _arenite.is_forked():
        _leave(None)
    plain = pickling.dump_plain(value)
    if plain is not None:
        return plain, None, 0
    return _dump(value, _arena)


def start_actor(function: bytes, arguments: Any, kind: int, buffers: list[Any]) -> tuple[Any, ...]:
    """Makes the object of an actor. Returns a tuple of the object, or the text and the pickle of the exception."""
    try:
        imports.end()
        if kind & context.PRECEDED:
            function = context.split(function)
        call, positional, named = _load_call(function, arguments, kind, buffers)
        made = (call(*positional, **named),)
        if _arenite.is_forked():
            _leave(None)
        return made
    except BaseException as error:
        return dump_error(error)
    finally:
        flush()


def call_actor(actor: Any, method: bytes, arguments: Any, kind: int, buffers: list[Any]) -> tuple[Any, ...]:
    """Calls a method of an actor. Returns the same as `run`."""
    try:
        if kind & context.PRECEDED:
            method = context.split(method)
        if kind & pickling.DEFINITIONS:
            method = mirror.define(method, buffers, _private)
        loaded = pickling.load(arguments, buffers, _private)
        _renew()
        positional, named = (loaded, {}) if kind & pickling.POSITIONAL else loaded
        del arguments, buffers, loaded
        value = getattr(actor, method.decode())(*positional, **named)
        del actor, positional, named
        return _dump_value(value)
    except BaseException as error:
        value = None
        return dump_error(error)
    finally:
        flush()


def _load_value(data: Any, buffers: list[Any]) -> Any:
    """Makes the value of another task. Only `plain` loads what sandboxed workers have sent."""
    load = pickling.load
    if _is_sandboxed:
        from .plain import load
    value = load(data, buffers, _private_values)
    if type(value) is raised.Raised:
        raise raised.load_error(value.pickle, load)
    return value


def _load_call(function: bytes, arguments: Any, kind: int, buffers: list[Any]) -> tuple[Any, Any, Any]:
    main.check()
    call = pickling.unpickle_function(function, kind, buffers, _private, _functions)
    loaded = pickling.load(arguments, buffers, _private)
    _renew()
    if kind & pickling.POSITIONAL:
        return call, loaded, {}
    return call, loaded[0], loaded[1]


def _run_many(function: bytes, arguments: Any, kind: int, buffers: list[Any]) -> tuple[bool, list[Any]]:
    """Calls one function many times. Returns whether all calls have succeeded, and their values, with `Raised` in place
    of missing values."""
    main.check()
    call = pickling.unpickle_function(function, kind, buffers, _private, _functions)
    items = pickling.load(arguments, buffers, _private)
    _renew()
    if kind & context.TIMED:
        _arenite.begin_timed()
    left = iter(items)
    values: list[Any] = []
    is_whole = True
    while True:
        try:
            # The values of calls before an exception stay in the list.
            _arenite.call_each(call, left, not kind & pickling.MANY, values)
            return is_whole, values
        except BaseException as error:
            is_whole = False
            values.append(raised.Raised(*dump_error(error)))


def _run_packet(function: bytes, arguments: Any, kind: int, buffers: list[Any]) -> tuple[Any, ...]:
    """Runs the calls of a packet. Returns as the value: the seconds taken, the seconds during which other programs had
    the core, the number of calls and, if the last result is not in the journal, the pickle of its value, whose buffers
    are those of the reply, or the text and the pickle of its exception. Without a journal, an exception fails the
    task."""
    call, make = pickling.open_function(function, kind, buffers, _private, _functions)
    if make is not None:
        call = make() if kind & pickling.SHARED else _Again(make)
    journal = buffers.pop(0) if kind & pickling.JOURNALED else None
    beside, copied = None, 0
    _renew()
    with call.arenite_around() if kind & pickling.SHARED else _Nothing():
        waits, begin = _waits(), time.thread_time()
        took, count, last = _arenite.run_packet(call, arguments, journal, buffers, _LONGEST_PACKET, _HOOKS)
        # The calls did not block, so without other programs they would have taken their processor time only.
        late = 0.0 if _waits() != waits else max(0.0, took - (time.thread_time() - begin))
    imports.note()
    if last is not None and len(last) == 3:
        last, beside, copied = last
    elif last is not None and journal is None:
        text, error = last
        return text, error
    return pickle.dumps((took - late, late, count, last), 5), beside, copied


def _waits() -> int:
    """Returns how often this thread has blocked, rather than waited for a core."""
    import resource

    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class _Again:
    """A function that is unpickled again for each call, because calls may change the objects that it refers to."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make()(*args)


class _Nothing:
    """The context of calls without `arenite_around`."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _load_arguments(data: bytes, buffers: list[Any]) -> Any:
    return pickling.load(data, buffers, _private)


def _dump_error_of_call(error: BaseException) -> tuple[str, bytes]:
    """Like `dump_error`, for an exception whose traceback begins with the called function."""
    trace = error.__traceback__
    if trace is not None:
        return dump_error(error, trace.tb_frame.f_code is _Again.__call__.__code__)
    try:
        # The called function is native: adds a frame, as if it was called here.
        raise error
    except BaseException as raised:
        return dump_error(raised)


def dump_error(error: BaseException, has_own_frame: bool = True) -> tuple[str, bytes]:
    """Returns the text of an exception, and a pickle of it. `has_own_frame`: whether its traceback begins here."""
    if _arenite.is_forked():
        _leave(error)
    return raised.dump(error, has_own_frame)


#: What `_arenite.run_packet` needs.
_HOOKS = (_load_arguments, _dump_value, _dump_error_of_call, _renew, flush)
