"""The core: executors, futures, pickling and workers. Private as a whole; users import its public names from `arenite`.

In reading order:

Submitting a call, in the program
- `executor`, `settings`: `Executor`, its options and its start; `Configured`.
- `workers`: `Workers`, the internal side of an executor, and `TaskOptions`.
- `future`: `Future`, which owns a task of the extension.
- `values`: futures among the arguments of a call.
- `dispatch`: the thread that finishes futures and prints output.
- `map`, `inputs`, `outcomes`: the results of many calls of one function, its arguments, and their outcomes.
- `by_submit`, `bars`: the same for an overridden `submit`; progress bars.
- `packing`: short calls that are sent together.
- `pool`, `actor`, `scope`, `isolated`: other ways to submit.
- `limiter`, `retry`, `room`: calls that wait, or run again.
- `inline`: tasks in this process, for `max_workers=0`.

Pickling, for both sides
- `pickling`: pickles calls and results.
- `by_name`: the pickler, for which functions and classes with a name are this name.
- `by_value`: functions and classes without a name.
- `out_of_band`: the large data of a pickle, in the arena.
- `arrays`, `copies`: arrays in the arena, and arguments that were copied there.
- `reach`, `codes`: what names lead to, and the names in code.
- `plain`: the pickles of a sandbox, which can only contain data.

What workers have of modules that they cannot import
- `definitions`: what an executor has sent.
- `grouping`: the groups of variables that a task needs.
- `sharing`: which variables share objects.
- `objects`: pickles the objects in variables.
- `elsewhere`: objects that modules have which workers import.
- `mirror`: these modules in a worker.
- `making`: makes classes and other objects.
- `lookup`: names that a task looks up without having them in its code.

The worker
- `start`, `template`: its interpreter, arguments and data; the process of which it is a copy.
- `tools`: debuggers, and the measurement of covered lines.
- `main`: its run of the main file.
- `worker`: what the extension calls there.
- `raised`: the exceptions of its tasks.
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
