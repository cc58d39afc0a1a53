"""The files of a table: `files`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from .._errors import TableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Source = str | os.PathLike[str]
Sources = Source | Iterable[Source]


def files(sources: Sources) -> list[str]:
    """Returns the files of a file, a folder, a pattern or a list of these, in order.

    A pattern or a folder stands for its files in the order of their paths; a list keeps its order. A folder stands for
    all files in it and in its folders, except those whose name begins with "." or "_".
    """
    given = [sources] if isinstance(sources, (str, bytes, os.PathLike)) else list(sources)
    found: list[str] = []
    for path in given:
        source: Any = os.fspath(path)
        if not isinstance(source, str):
            raise TypeError(f"a path is text, not {type(source).__name__}")
        before = len(found)
        try:
            _expand(source, found)
        except OSError as error:
            raise TableError.at(error.strerror or str(error), file=source) from error
        if len(found) == before:
            nothing = "there is no such file: nothing matches the pattern, or the folder is empty"
            raise TableError.at(nothing, file=source)
    if not found:
        raise TableError("the list of files is empty")
    return found


def _expand(source: str, found: list[str]) -> None:
    # A name of an existing file is not a pattern.
    if not os.path.exists(source) and any(sign in source for sign in "*?["):
        found += sorted(path for path in glob.glob(source, recursive=True) if not os.path.isdir(path))
    elif os.path.isdir(source):
        for name in sorted(os.listdir(source)):
            if name[0] not in "._":
                _expand(os.path.join(source, name), found)
    else:
        os.stat(source)
        found.append(source)
