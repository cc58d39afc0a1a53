"""The names of arguments of `torch.utils.data.DataLoader`: what they are here, or what to write instead."""

from __future__ import annotations

from typing import Any

#: The same under another name.
_SAME = {"num_workers": "workers", "collate_fn": "collate"}
#: Values that change nothing here, and what to write in the place of others.
_INSTEAD: dict[str, tuple[tuple[Any, ...], str]] = {
    "batch_sampler": ((None,), "sampler= with a function that puts indices in order, in groups of batch_size"),
    "generator": ((None,), "seed="),
    "in_order": ((True,), "nothing: batches always come in order"),
    "multiprocessing_context": ((None, "forkserver"), "executor=arenite.Executor(start=…)"),
    "persistent_workers": ((True, False), ""),
    "pin_memory": ((False,), "batch.torch(), and pin_memory() of its tensors"),
    "pin_memory_device": (("", None), "batch.torch(), and pin_memory() of its tensors"),
    "prefetch_factor": ((None,), "prefetch=, the number of batches of all workers together"),
    "timeout": ((0, None), "deadline=, the seconds that one sample may take"),
    "worker_init_fn": ((None,), "executor=arenite.Executor(initializer=…); random numbers need no seeding: see rng"),
}


def translated(given: dict[str, Any]) -> dict[str, Any]:
    """Returns arguments under the names that they have here. Raises TypeError for those that mean something else."""
    made = {}
    for name, value in given.items():
        if name in _SAME:
            made[_SAME[name]] = value
            continue
        if name not in _INSTEAD:
            raise TypeError(f"Loader() got an unexpected keyword argument {name!r}")
        harmless, instead = _INSTEAD[name]
        if not any(value is one or value == one for one in harmless):
            raise TypeError(f"Loader() has no {name}={value!r}: pass {instead}")
    return made
