"""The names that code refers to, and values that cannot change."""

from __future__ import annotations

import dis
import functools
import re
import sys
import weakref
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import reach

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class Names(NamedTuple):
    """The names that the code of a function refers to, with the code of its inner functions and classes."""

    #: Globals and builtins.
    globals: frozenset[str]
    #: Attributes and everything else.
    others: frozenset[str]
    #: Whether the code sets variables of an enclosing function.
    sets_cells: bool
    #: Whether the code may look up any global.
    is_open: bool
    #: Words in texts of the code that may be globals.
    texts: frozenset[str]


_OF_GLOBALS = {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
#: Functions that look up globals by names that are not in the code.
_OPEN = {"globals", "eval", "exec"}
#: Attributes that lead to any global.
_OPEN_ATTRIBUTES = {"__subclasses__", "__globals__", "f_globals"}
#: What looks up a name of `__main__` that is not an attribute in the code.
_OPEN_MAIN = {"getattr", "vars", "__dict__", "attrgetter"}
#: Functions of libraries that evaluate a text with the globals of their caller: pandas, numexpr, DuckDB.
_EVALUATING = {"eval", "evaluate", "sql"}
#: A longer text is not searched for names.
_LONGEST_TEXT = 1000
_WORD = re.compile(r"[^\W\d]\w*")
#: A global in a query of pandas, and a formula of statsmodels.
_MARKED, _FORMULA = re.compile(r"@([^\W\d]\w*)"), re.compile(r"\w\s*~\s*[\w(]")
#: Flags of code: of a function, and of a function with documentation.
_OF_FUNCTION, _HAS_DOCSTRING = 1, 0x4000000
_OF_CELLS = {"STORE_DEREF", "DELETE_DEREF"}
#: By the identity of a code object that exists.
_names: dict[int, tuple[weakref.ref[CodeType], Names]] = {}


def names_of(code: CodeType) -> Names:
    known = _names.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    found, others, sets = set(), set(code.co_names), False
    texts = {word for text in _texts(code) for word in words(text)}
    called = None
    for instruction in dis.get_instructions(code):
        if instruction.opname in _OF_GLOBALS:
            found.add(instruction.argval)
        elif instruction.opname in _OF_CELLS and instruction.argval in code.co_freevars:
            sets = True
        elif instruction.opname == "LOAD_CONST" and called in _EVALUATING and type(instruction.argval) is str:
            texts.update(words(instruction.argval, True))
        if instruction.opname != "PUSH_NULL":
            called = instruction.argval if type(instruction.argval) is str else None
    for constant in code.co_consts:
        if constant == "__main__":
            others.add(constant)
        if type(constant) is CodeType:
            inner = names_of(constant)
            found |= inner.globals
            others |= inner.others
            texts |= inner.texts
            sets |= inner.sets_cells
    is_open = bool(found & _OPEN or others & _OPEN_ATTRIBUTES) or "__name__" in found and "modules" in others
    is_open |= "__main__" in others and not _OPEN_MAIN.isdisjoint(found | others)
    names = Names(frozenset(found), frozenset(others), sets, is_open, frozenset(texts))
    key = id(code)
    _names[key] = weakref.ref(code, lambda _: _names.pop(key, None)), names
    return names


def _texts(code: CodeType) -> Iterator[str]:
    """Returns the texts in the code of a function, without its documentation and its inner functions."""
    has_docstring = code.co_flags & (_OF_FUNCTION if sys.version_info < (3, 14) else _HAS_DOCSTRING)
    left = list(code.co_consts[1:] if has_docstring else code.co_consts)
    while left:
        constant = left.pop()
        if type(constant) is str:
            yield constant
        elif type(constant) in (tuple, frozenset):
            left += constant


def words(text: str, is_evaluated: bool = False) -> list[str]:
    """Returns the words of a text that may be globals of the code that uses the text."""
    if len(text) > _LONGEST_TEXT:
        return []
    if is_evaluated or "__main__" in text or _FORMULA.search(text):
        return _WORD.findall(text)
    return _MARKED.findall(text)


@functools.lru_cache
def _names_in_text(text: str) -> frozenset[str]:
    """Returns the names in an annotation that is text."""
    try:
        code = compile(text, "<annotation>", "eval")
    except (SyntaxError, ValueError):
        return frozenset()
    inner = () if {"Literal", "Annotated"}.intersection(code.co_names) else _texts(code)
    return frozenset(code.co_names).union(*map(_names_in_text, inner))


def names_in(annotation: Any) -> frozenset[str]:
    """Returns the names that an annotation, or an alias of a type, has as text."""
    kind = type(annotation)
    if kind is str:
        return _names_in_text(annotation)
    if kind.__name__ == "ForwardRef":
        return _names_in_text(annotation.__forward_arg__)
    if kind.__module__ in ("typing", "types", "collections.abc") and kind.__name__ != "_LiteralGenericAlias":
        return frozenset().union(*map(names_in, getattr(annotation, "__args__", ())))
    return frozenset()


#: Types whose objects cannot change.
ATOMS = {int, float, complex, bool, str, bytes, type(None), range, type(Ellipsis), type(NotImplemented)}


def is_one_of(kind: type, kinds: Collection[type]) -> bool:
    """Whether a type is one of these."""
    try:
        return kind in kinds
    except Exception:  # Its metaclass compares types, but has no hash.
        return False


def parts_of_tuples(value: Any) -> Iterator[Any]:
    """Yields what tuples and frozensets in each other contain, however deep they are; the value, if it is neither."""
    left, seen = [value], set()
    while left:
        one = left.pop()
        if type(one) is not tuple and type(one) is not frozenset:
            yield one
        elif id(one) not in seen:
            seen.add(id(one))
            left += one


def is_atom(value: Any) -> bool:
    return all(is_one_of(type(one), ATOMS) for one in parts_of_tuples(value))


def is_constant(function: FunctionType, held: list[Any]) -> bool:
    """Whether nothing that a task does can change a function that is pickled by value. Adds to `held` the objects that
    the pickle has or refers to: with the same objects, the next pickle is the same."""
    values = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    values += [content for _, content in contents(function)]
    held += [function.__code__, function.__defaults__, function.__kwdefaults__, function.__name__, *values]
    if function.__dict__ or names_of(function.__code__).sets_cells or home_of(function.__globals__, False) is None:
        return False
    return all(map(_is_fixed, values))


def _is_fixed(value: Any) -> bool:
    if type(value) is BuiltinFunctionType:
        return type(value.__self__) in (ModuleType, type(None))
    is_named = isinstance(value, (FunctionType, type)) and reach.is_global(value)
    return is_named or type(value) is ModuleType or is_atom(value)


def contents(function: FunctionType) -> Iterator[tuple[CellType, Any]]:
    for cell in function.__closure__ or ():
        try:
            yield cell, cell.cell_contents
        except ValueError:
            pass  # The cell is empty.


def home_of(space: dict[str, Any], copies: bool) -> tuple[str, bool] | None:
    """Returns the name of the module with these globals, and whether it is mirrored; None if the globals are copied."""
    name = space.get("__name__")
    module = sys.modules.get(name) if type(name) is str else None
    if module is None or vars(module) is not space:
        return None
    is_mirrored = not reach.is_importable(name)
    return None if copies and not is_mirrored else (name, is_mirrored)  # type: ignore[return-value]
