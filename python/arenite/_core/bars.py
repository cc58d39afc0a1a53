"""Progress bars in the program."""

from __future__ import annotations

from typing import Any


def make_bar(progress: Any, total: int | None, **options: Any) -> Any:
    """Returns a progress bar if `progress` asks for one and tqdm is installed."""
    if not progress:
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=progress if isinstance(progress, str) else None, **options)
