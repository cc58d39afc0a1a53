"""Unpickles definitions of which a part cannot be unpickled, so that the other parts can be used. Slow."""

from __future__ import annotations

import pickle
from typing import Any

from . import mirror

#: What is on the stack after an instruction that has failed: the object that it would have changed, or nothing.
_CHANGING = (
    *(pickle.REDUCE, pickle.BUILD, pickle.APPEND, pickle.APPENDS),
    *(pickle.SETITEM, pickle.SETITEMS, pickle.ADDITEMS),
)
_MAKING = (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.STACK_GLOBAL)


class Unpickler(pickle._Unpickler):  # type: ignore[misc]
    """Replaces each object that cannot be made by one that raises the reason when it is used."""

    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def persistent_load(self, key: Any) -> Any:
        return mirror.find_global(key)

    def load(self) -> Any:
        *rest, name, value = super().load()
        if type(value) is mirror.Unsent:
            value = mirror.Unsent(f"the global `{name}` {value.arenite_reason}")
        return *rest, name, value


def _tolerant(code: int, is_making: bool) -> Any:
    run = Unpickler.dispatch[code]

    def load(unpickler: Any) -> None:
        try:
            run(unpickler)
        except Exception as error:
            known = unpickler.stack.pop() if not is_making else None
            reason = f"cannot be unpickled: {type(error).__name__}: {error}"
            unpickler.stack.append(known if type(known) is mirror.Unsent else mirror.Unsent(reason))

    return load


for _codes, _is_making in ((_CHANGING, False), (_MAKING, True)):
    Unpickler.dispatch.update({code[0]: _tolerant(code[0], _is_making) for code in _codes})
