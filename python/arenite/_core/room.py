"""Makes `submit` wait while the arena has no room for its arguments, like the bounded queue of other pools, until tasks
have ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import dispatch, native

if TYPE_CHECKING:
    from .._errors import ArenaFull
    from .workers import Workers

#: The seconds without the end of any task after which waiting is given up.
_LONGEST = 60.0
#: The seconds between two polls: at first, and at most.
_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02


def wait(workers: Workers, full: ArenaFull, last: int | None = None) -> int | None:
    """Waits until a task has ended. Returns the number of ended tasks, which the next call gets as `last`; None if no
    task ends, or this thread must not wait."""
    if native.running_loop() is not None:
        return None
    if full.worker_share is not None or full.requested > full.capacity or dispatch.is_current():
        return None
    before: int | None = None
    until, pause = time.monotonic() + _LONGEST, _PAUSE
    while time.monotonic() < until and not workers.is_ending():
        stats = workers.engine.stats()
        ended: int = stats["done"] + stats["failed"] + stats["cancelled"]
        if before is None:
            before = ended
        if ended != before:
            return ended
        if not stats["running"] and not stats["queued"]:
            # The last task may have ended between the failure and the first poll.
            return None if ended == last else ended
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return None


def advise(full: ArenaFull) -> ArenaFull:
    """Adds advice to the message."""
    if full.args and isinstance(full.args[0], str) and "ex.share" not in full.args[0]:
        full.args = (f"{full.args[0]}; pass an array that goes to many tasks as ex.share(x), which copies it once",)
    return full
