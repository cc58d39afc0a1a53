"""Notebooks: the output of tasks appears below the cell that has run them, and tracebacks name cells."""

from __future__ import annotations

import linecache
import re
from typing import TYPE_CHECKING, Any

from . import dispatch
from .process import imported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .workers import Workers

#: The shell whose cells are followed.
_shell: Any = None


#: A frame in a traceback, and the indentation of its line of source.
_FRAME = re.compile(r'^([ |]*)File "(.+)", line (\d{1,9})(.*\n)(\1  )?', re.MULTILINE)


def name_cells(text: str) -> str:
    """Names the cells of a notebook in a traceback as IPython does, `Cell In[3], line 2`, with their source."""
    ipython = imported("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    describe = getattr(getattr(shell, "compile", None), "format_code_name", None)
    if describe is None:
        return text

    def named(frame: re.Match[str]) -> str:
        indent, file, line, rest, source = frame.groups()
        name = describe(file)
        if name is None:
            return frame[0]
        # The worker has the source of functions with a name only.
        if source is None and (code := linecache.getline(file, int(line)).strip()):
            source = f"{indent}  {code}\n"
        return f"{indent}{' '.join(name)}, line {line}{rest}{source or ''}"

    return _FRAME.sub(named, text)


def follow_cells(all_workers: Iterable[Workers]) -> None:
    """Makes the end of each cell wait for the output of tasks so far."""
    global _shell
    ipython = imported("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or shell is _shell:
        return
    _shell = shell

    def flush(*_: object) -> None:
        for workers in list(all_workers):
            if not workers.is_closed and not workers.engine.is_foreign:
                workers.engine.flush_logs()
        dispatch.drain()

    shell.events.register("post_run_cell", flush)
