"""The exceptions of tasks: a worker makes a pickle and a text of them, from which the program makes them again."""

from __future__ import annotations

import gc
import sys

from .. import _arenite
from . import pickling

# A worker imports this before its first task: see `pickling`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable
    from typing import Any
else:
    import _pickle as pickle

#: The largest pickle of an exception that is sent unchanged. A larger pickle is compressed.
_LARGEST_ERROR = 6 << 20
#: The largest message and traceback of an exception that is sent as text.
_LONGEST_TEXT = 128 << 10

#: Words in messages about read-only arrays, and the advice that is added.
_READ_ONLY = ("read-only", "readonly", "WRITEABLE")
_NOTE = (
    "Shared arrays are read-only in tasks of arenite, and in a sandbox all arrays of 256 KiB or more: copy what the "
    'task changes, or make the executor with writable="copy".'
)

#: Whether tasks get private copies of their arguments.
_is_private = False
#: The limit of private memory; 0 without one.
_memory_limit = 0
#: Memory that is freed for the report when a task has used all other memory.
_reserve: bytes | None = None
_RESERVED = 2 << 20
#: Pickles exceptions. Arguments: an exception, and the arena for its buffers.
_dump_value: Callable[..., tuple[bytes, list[Any], int]] = pickling.dump


def begin(private: bool, memory_limit: int, dump: Callable[..., tuple[bytes, list[Any], int]]) -> None:
    """Prepares this worker for reports."""
    global _is_private, _memory_limit, _dump_value
    _is_private, _memory_limit, _dump_value = private, memory_limit, dump
    if memory_limit:
        # Imported now for the report of a task that leaves no memory for imports.
        import traceback  # noqa: F401

        from .. import _errors  # noqa: F401

        _renew_reserve()


def _renew_reserve() -> None:
    global _reserve
    try:
        # The reserve consists of zeros that are not read, so it takes no pages.
        _reserve = bytes(_RESERVED)
    except MemoryError:
        pass


class Raised:
    """An exception of a call, in place of its value."""

    __slots__ = ("pickle", "text")

    def __init__(self, text: str, pickle: bytes) -> None:
        self.text = text
        self.pickle = pickle

    def __reduce__(self) -> Any:
        return Raised, (self.text, self.pickle)


def dump(error: BaseException, has_own_frame: bool = True) -> tuple[str, bytes]:
    """Returns the text of an exception, and a pickle of it."""
    global _reserve
    if isinstance(error, MemoryError):
        # Freed first: no other memory may be left.
        _reserve = None
    if isinstance(error, StopIteration):
        # A StopIteration would silently end the loop that asks for the result.
        error = stopped(error)
    # The frames refer to objects that the task has made.
    chain = _chain(error)
    for one in chain:
        _clear_frames(one)
    if isinstance(error, MemoryError):
        # A value that refers to an exception of its function, such as Dask's, forms a cycle with the frames.
        gc.collect()
    if error.__traceback__ is not None and has_own_frame:
        # Removes the frames of this module.
        _set_traceback(error, error.__traceback__.tb_next or error.__traceback__)
    while (first := error.__traceback__) is not None and first.tb_next is not None and _is_of_wrapper(first):
        _set_traceback(error, first.tb_next)
    if not _is_private and any(_is_read_only(one) for one in chain):
        try:
            error.add_note(_NOTE)
        except Exception:
            pass  # Its class refuses attributes.
    trace, text = _format(error)
    if isinstance(error, MemoryError) and _memory_limit:
        from .._errors import ArenaFull, MemoryLimitExceeded

        if not isinstance(error, ArenaFull):
            text_of_limit = f"the task ran out of memory: its worker has {_memory_limit} bytes"
            error = MemoryLimitExceeded(text_of_limit, limit=_memory_limit)
    for one in chain:
        _set_traceback(one, None)
    data: Any = None
    try:
        data, _, _ = _dump_value(error, None)
        if not isinstance(pickle.loads(data), BaseException):
            data = None
        elif len(data) > _LARGEST_ERROR:
            data = _compressed(data)
    except BaseException:
        data = None
    name, message = _describe(error)
    whole = pickle.dumps((data, name, message[:_LONGEST_TEXT], trace[-_LONGEST_TEXT:]), 5)
    if _memory_limit and _reserve is None:
        _renew_reserve()
    # Texts of Python may contain lone surrogates.
    return text[:_LONGEST_TEXT].encode(errors="backslashreplace").decode(), whole


#: Not an assignment: the class of an exception may refuse assignments, as frozen data classes do.
_set_traceback: Callable[[BaseException, Any], object] = BaseException.with_traceback


def _describe(error: BaseException) -> tuple[str, str]:
    """Returns the name of an exception's class, and the message."""
    try:
        message = str(error)
    except BaseException:
        # A `__str__` may also call `exit()`.
        message = "its message cannot be made"
    return f"{type(error).__module__}.{type(error).__qualname__}", message


def _format(error: BaseException) -> tuple[str, str]:
    """Returns the traceback of an exception, and the part that says what was raised."""
    try:
        import traceback
    except (ImportError, OSError):
        # No file can be opened: the task has used all descriptors.
        frames, line, trace = "", ": ".join(_describe(error)), error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            frames += f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n'
            trace = trace.tb_next
        return f"Traceback (most recent call last):\n{frames}{line}\n", line
    try:
        return "".join(traceback.format_exception(error)), "".join(traceback.format_exception_only(error)).strip()
    except BaseException:
        # Of its `__str__`; before Python 3.13, also of a `__getattr__` that raises no AttributeError.
        frames, line = "".join(traceback.format_tb(error.__traceback__)), ": ".join(_describe(error))
        return f"Traceback (most recent call last):\n{frames}{line}\n", line


def _is_of_wrapper(trace: Any) -> bool:
    """Whether the frame belongs to the wrapper that `isolated` makes."""
    return bool(trace.tb_frame.f_globals.get("__name__") == "arenite._core.isolated")


def _is_read_only(error: BaseException) -> bool:
    """Whether an exception is about an array that cannot be written."""
    try:
        return not isinstance(error, OSError) and any(words in str(error) for words in _READ_ONLY)
    except BaseException:
        return False


class _Compressed:
    """An object whose pickle is compressed, and unpickles as the original object."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed

    def __reduce__(self) -> Any:
        import zlib

        return zlib.decompress, (self.packed,)


def _compressed(data: bytes) -> _Compressed | None:
    """Compresses a long pickle of an exception. Not in a sandbox: the program decompresses nothing from it."""
    if _dump_value is not pickling.dump:
        return None
    import zlib

    packed = zlib.compress(data, 1)
    return None if len(packed) > _LARGEST_ERROR else _Compressed(packed)


def stopped(error: StopIteration) -> RuntimeError:
    """Returns the RuntimeError that replaces a StopIteration, as Python raises it for a generator."""
    instead = RuntimeError("generator raised StopIteration").with_traceback(error.__traceback__)
    instead.__cause__ = error
    return instead


def _clear_frames(error: BaseException) -> None:
    frame = error.__traceback__
    while frame is not None:
        try:
            frame.tb_frame.clear()
        except RuntimeError:
            pass  # The frame is still running.
        frame = frame.tb_next


def _chain(error: BaseException) -> list[BaseException]:
    """Returns the exception, and all exceptions that it refers to."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and not any(one is other for other in found):
            found.append(one)
            left += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                left += one.exceptions
    return found


def load_error(data: bytes, load: Callable[..., Any]) -> BaseException:
    """Unpickles the exception of a task in the program. Its cause is the traceback of the worker. `load`: unpickles."""
    from .._errors import RemoteError, RemoteTraceback

    made: Any = None
    try:
        stored, *texts = load(data, ())
        # These texts are shown: escapes characters that would control a terminal.
        name, message, trace = map(_arenite.escape, texts)
        if "IPython" in sys.modules:
            from .notebook import name_cells

            trace = name_cells(trace)
    except Exception as error:
        return RemoteError(f"the exception of the task cannot be read: {error!r}")
    if stored is not None:
        try:
            made = load(stored, ())
        except KeyboardInterrupt:
            # Ctrl-C has come at this moment.
            raise
        except BaseException:
            made = None
    if not isinstance(made, BaseException):
        made = RemoteError(f"{name}: {message}", name, trace)
    # Not an assignment: see `_set_traceback`.
    vars(BaseException)["__cause__"].__set__(made, RemoteTraceback(trace))
    return made  # type: ignore[no-any-return]
