"""The input of a map."""

from __future__ import annotations

import gc
import itertools
from collections import UserDict, UserList, deque
from collections.abc import Sized
from copy import copy
from typing import TYPE_CHECKING, Any

from . import out_of_band
from .process import imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._arenite import Buffer

_EMPTY: dict[Any, Any] = {}
#: Containers that can change, and whose items exist.
_CONTAINERS = (
    *(list, dict, set, deque, bytearray, UserDict, UserList),
    *(type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items())),
)


def check_sizes(chunksize: int | None, buffersize: int | None) -> None:
    """Raises ValueError for a wrong size of a map."""
    if chunksize is not None and chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or at least 1")


def present(items: Any) -> Any:
    """Returns the present items of a container, which the program may change before they are all submitted. Returns an
    input that cannot change, or makes its items, as it is."""
    if isinstance(items, _CONTAINERS):
        # `list` asks for the length, and the one of a derived class may raise.
        return list(items) if type(items) in _CONTAINERS else [item for item in items]
    if type(items).__module__ == "array" or out_of_band.is_array(items) and items.ndim == 1:
        return copy(items)
    return items


def length(items: Any) -> int | None:
    """Returns the length of an input; None if it has none, also if its class only raises an exception that says so."""
    try:
        return len(items) if isinstance(items, Sized) else None
    except Exception:
        return None


def is_endless(items: Any) -> bool:
    """Whether an input is known to have no end."""
    kind = type(items)
    return kind in (itertools.count, itertools.cycle) or kind is itertools.repeat and not _is_finite(items)


def _is_finite(items: Any) -> bool:
    try:
        items.__length_hint__()
    except TypeError:
        return False
    return True


class Layouts:
    """Pickles arguments of a map. Arguments that are one array in the arena have the pickle of the first array of their
    layout, beside another buffer."""

    def __init__(
        self, dump: Callable[[Any], Any], find: Callable[[Any], Buffer | None], others: frozenset[int]
    ) -> None:
        """`dump`: pickles any arguments; `find`: finds the bytes of an array in the arena; `others`: identities of
        arrays that the function also has."""
        self._dump, self._find, self._others = dump, find, others
        self._array = getattr(imported("numpy"), "ndarray", None)
        #: By the layout: the type of the elements, which exists as long as its identity is used, and the pickle.
        self._known: dict[Any, tuple[Any, bytes]] = {}

    def dump(self, item: tuple[Any, ...]) -> Any:
        """Returns the same as `Packing.dump`."""
        array = item[0]
        if type(array) is not self._array or len(item) != 1:
            return self._dump(item)
        layout = id(array.dtype), array.shape, array.strides
        known, found = self._known.get(layout), self._find(array)
        is_other = id(array) in self._others or array.dtype.names is not None
        if found is None or found.of_private or found.lent or is_other:
            return self._dump(item)
        if known is not None:
            return known[1], [found], len(known[1])
        made = self._dump(item)
        if made is not None and len(made[1]) == 1 and made[1][0].nbytes == found.nbytes == array.nbytes:
            self._known[layout] = array.dtype, made[0]
        return made


def copies_of_repeated(iterables: tuple[Any, ...], copy: Callable[[Any], Any]) -> dict[int, tuple[Any, Any]]:
    """Copies the array of each `itertools.repeat` once for all calls. Returns the arrays and their replacements by the
    identity of the arrays. `copy` returns the replacement, or NotImplemented for an array that is pickled."""
    found = [items for items in iterables if type(items) is itertools.repeat]
    # Takes no item: the program may use the rest.
    arrays = [value for value in gc.get_referents(*found) if out_of_band.is_array(value)]
    copied = {id(array): (array, copy(array)) for array in arrays}
    return {key: one for key, one in copied.items() if one[1] is not NotImplemented}


class WithCopies(out_of_band.Arguments):
    """Replaces arrays that many calls have by the copies that were made of them once."""

    def __init__(self, arena: out_of_band.Arena | None, private: bool, copies: dict[int, tuple[Any, Any]]) -> None:
        super().__init__(arena, private)
        self.copies = copies

    def reduce_array(self, array: Any) -> Any:
        known = self.copies.get(id(array))
        return super().reduce_array(array) if known is None else known[1]


class Chunks:
    """The items in lists of this size, or in slices of a sequence. An exception of the input loses no items."""

    def __init__(self, items: Iterable[Any], size: int) -> None:
        #: A slice of a range takes no memory for its items.
        self._whole: Any = items if type(items) in (range, list, tuple) else None
        self._at = 0
        self._left = iter(()) if self._whole is not None else iter(items)
        self._next: list[Any] = []
        self._size = size

    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> Any:
        if self._whole is not None:
            chunk = self._whole[self._at : self._at + self._size]
            if not chunk:
                raise StopIteration
            # No function call, here and below: see `Results._send`.
            self._at += self._size
            return chunk
        chunk = self._next
        chunk.extend(itertools.islice(self._left, self._size - len(chunk)))
        if not chunk:
            raise StopIteration
        self._next = []
        return chunk
