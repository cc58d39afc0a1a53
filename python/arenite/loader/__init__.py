"""Batches of samples for training, and frames of a video, in shared memory: see docs/loader.md.

>>> import arenite.loader as al
>>> with al.Loader(range(6), batch_size=4, workers=2) as loader:
...     [batch.tolist() for batch in loader]
[[0, 1, 2, 3], [4, 5]]
"""

from .columns import Rows as Rows
from .columns import share as share
from .faults import Failure as Failure
from .frames import Frames as Frames
from .frames import frames as frames
from .layout import Batch as Batch
from .layout import BatchTuple as BatchTuple
from .layout import jax as jax
from .layout import torch as torch
from .loader import Loader as Loader
from .stream import Stream as Stream
