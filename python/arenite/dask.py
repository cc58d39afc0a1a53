"""Dask workers that run tasks in processes of arenite: a plugin for `distributed`.

>>> import dask
>>> from distributed import Client, LocalCluster
>>> from arenite.dask import ArenitePlugin
>>> cluster = LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None)
>>> with cluster, Client(cluster) as client:
...     registered = client.register_plugin(ArenitePlugin(memory_limit="2GiB", deadline=60))
...     with dask.annotate(executor="arenite"):
...         client.submit(pow, 2, 10).result()
1024

Dask decides on which machine a task runs. There the task runs in a separate process: a task that segfaults, hangs or
asks for too much memory fails alone. No worker of Dask is lost, and no other task runs again. A task that is cancelled,
or whose result nobody needs any more, is ended. Tasks of a worker pass arrays to each other without a copy; Dask sends
values to other machines.
"""

from .integrations.dask import ArenitePlugin as ArenitePlugin
from .integrations.dask import TaskExecutor as TaskExecutor
