"""Notebooks: the output of tasks appears below the cell that has run them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import dispatch
from .process import imported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .workers import Workers

#: The shell whose cells are followed.
_shell: Any = None


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
