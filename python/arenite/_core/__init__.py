"""The core: executors, futures, pickling and workers. Private as a whole; users import its public names from `arenite`.

In reading order:

Submitting a call, in the program
- `executor`: `Executor`, its options and its start; `Configured`.
- `workers`: `Workers`, the internal side of an executor, and `Settings` of tasks.
- `future`: `Future`, which owns a task of the extension.
- `dispatch`: the thread that finishes futures and prints output.
- `map`, `inputs`: the results of many calls of one function, and its arguments.
- `packing`: short calls that are sent together.
- `pool`, `actor`, `scope`, `isolated`: other ways to submit.
- `limiter`, `retry`, `room`: calls that wait, or run again.
- `inline`: tasks in this process, for `max_workers=0`.

Pickling, for both sides
- `pickling`: pickles calls and results, with arrays in the arena.
- `arrays`, `copies`: arrays in the arena, and arguments that were copied there.
- `definitions`, `by_value`: functions and classes that workers cannot import.
- `links`: objects that their globals share.
- `instances`: whether a container with objects of the program has changed.
- `elsewhere`: objects that modules have which workers import.
- `mirror`: the worker's version of their modules.
- `lookup`: names that a task looks up without having them in its code.
- `lenient`: definitions of which a part cannot be unpickled.
- `weak`: what is known of objects, by identity.
- `plain`: the pickles of a sandbox, which can only contain data.

The worker
- `start`, `template`: its interpreter, arguments and data; the process of which it is a copy.
- `main`: its run of the main file.
- `worker`: what the extension calls there.
- `context`, `imports`, `libraries`, `process`, `inherit`: what it takes over from the program.
- `sandbox`: preparations for the sandbox.
- `identity`: `Worker`, a task's view of its worker.

What comes back besides results
- `channel`: connections from workers.
- `log`, `output`, `printing`: log records and printed text.
- `notebook`: text below the cell that has run the task.
- `stats`: statistics.

Helpers
- `native`: threads of the operating system, and waiting.
- `locks`: locks that signal handlers, finalizers and forked processes may meet.
- `sizes`, `signatures`: options with units, and types for type checkers.
"""
