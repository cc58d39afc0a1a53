"""joblib's `Parallel`, and with it scikit-learn, on worker processes of arenite: importing this module registers the
backend "arenite".

>>> import arenite.joblib
>>> from joblib import Parallel, delayed, parallel_config
>>> with parallel_config(backend="arenite", n_jobs=2):
...     Parallel()(delayed(pow)(n, 2) for n in range(4))
[0, 1, 4, 9]
>>> arenite.joblib.shutdown()                            # otherwise the workers wait for the next call

It replaces joblib's default backend, loky. Workers start once and serve later calls. Arrays from `max_nbytes` (1 MB) on
are shared and read-only in tasks; smaller arrays are private copies, and results are private. The differences are:

- A shared array is copied once for each call of `Parallel`, however many tasks it is passed to. No file is written. The
  memory is freed when the call ends.
- A worker that dies costs one task, also if joblib submits several quick tasks together. `Parallel` raises
  `WorkerDied`, whose notes name the task; with `errors="return"` the exception replaces the result and the other tasks
  go on. The worker is replaced, and the next call works.
- When a call ends early, by an exception, its timeout, Ctrl-C or because its generator is dropped, running tasks are
  ended with their workers.
"""

from .integrations.joblib import AreniteBackend as AreniteBackend
from .integrations.joblib import shutdown as shutdown
from .integrations.joblib_arrays import Arrays as Arrays
