"""`arenite.loader`: the order of samples is compared with a model in plain Python; workers are killed at each step."""

import collections
import contextlib
import dataclasses
import gc
import itertools
import os
import random
import signal
import sys
import types

import arenite
import arenite.loader as al
import harness
import numpy as np
import pytest


@pytest.fixture(scope="module")
def executors():
    made = {count: arenite.Executor(count, output=None) for count in (0, 1, 2, 3)}
    yield made
    for executor in made.values():
        executor.shutdown()


class Numbers:
    """Samples of which every element says which one they are."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, i, rng):
        return {"index": i, "row": np.full(3, i, np.float32), "drawn": rng.random()}


def taken(batches):
    """Plain values of batches, which are dropped one by one."""
    return [(batch["index"].tolist(), batch["row"].tolist(), batch["drawn"].tolist()) for batch in batches]


def model(size, batch_size, seed, epoch, shuffle, rank, world, drop_last):
    """The batches of an epoch, in plain Python."""
    order = list(range(size))
    if shuffle:
        order = [int(i) for i in np.random.default_rng([seed, epoch]).permutation(size)]
    if drop_last:
        order = order[: len(order) - len(order) % world]
    elif order:
        order = list(itertools.islice(itertools.cycle(order), len(order) + -len(order) % world))
    mine = order[rank::world]
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    if drop_last and batches and len(batches[-1]) < batch_size:
        batches.pop()
    draw = {i: np.random.default_rng([seed, epoch, i]).random() for i in mine}
    return [(batch, [[float(i)] * 3 for i in batch], [draw[i] for i in batch]) for batch in batches]


@pytest.mark.parametrize("round", range(12))
def test_order_is_that_of_the_model_with_any_workers_and_at_any_point_of_resuming(round, executors):
    chance = random.Random(f"{os.environ['ARENITE_SEED']} {round}")
    size, batch_size, seed = chance.randrange(0, 60), chance.randrange(1, 20), chance.randrange(1 << 40)
    shuffle, drop_last, world = chance.random() < 0.7, chance.random() < 0.5, chance.choice([1, 1, 2, 3])
    rank, epochs = chance.randrange(world), 3
    expected = [model(size, batch_size, seed, e, shuffle, rank, world, drop_last) for e in range(epochs)]

    def make(seed=seed):
        given = executors[chance.randrange(4)]
        return al.Loader(
            Numbers(size), batch_size, shuffle, seed=seed, rank=rank, world=world, drop_last=drop_last,
            prefetch=chance.randrange(4), executor=given,
        )  # fmt: skip

    loader, states, flat = make(), [], []
    for e in range(epochs):
        assert len(loader) == len(expected[e])
        states.append(loader.state_dict())
        found = []
        for batch in loader:
            found += taken([batch])
            states.append(loader.state_dict())
        assert found == expected[e]
        flat += expected[e]
    if not flat:
        return
    assert all(set(state) == {"seed", "epoch", "batch"} for state in states)
    for state in chance.sample(states, min(4, len(states))):
        resumed = make(seed=0)
        resumed.load_state_dict(state)
        done = sum(len(batches) for batches in expected[: state["epoch"]]) + state["batch"]
        rest = []
        while resumed.epoch < epochs:
            rest += taken(resumed)
        assert rest == flat[done:], state


def test_an_iteration_that_is_left_leaves_nothing_lent(executors):
    executor = executors[2]
    gc.collect()
    before = executor.stats().used_bytes
    loader = al.Loader(Numbers(64), 8, executor=executor, prefetch=4)
    for left in range(4):
        for number, _batch in enumerate(loader):
            if number == left:
                break
    assert loader.state_dict() == {"seed": 0, "epoch": 3, "batch": 4}
    assert [len(taken(loader)), loader.epoch] == [8, 5]
    first = iter(loader)
    next(first)
    second = iter(loader)
    assert next(second)["index"].tolist() == list(range(8))
    with pytest.raises(RuntimeError, match="another iteration"):
        next(first)
    del first, second, _batch
    loader.close()
    del loader
    gc.collect()
    harness.until(lambda: executor.stats().used_bytes <= before, "the memory of the batches to be free")


def test_memory_returns_when_the_last_view_of_a_batch_is_gone(executors):
    loader = al.Loader(Numbers(80), 8, executor=executors[2], prefetch=2)
    kept, seen = [], collections.Counter()
    for batch in loader:
        kept.append(batch["row"][1:, :1])  # a view of a view
        seen[batch["row"].__array_interface__["data"][0]] += 1
    assert len(seen) == 10
    assert [part[0, 0] for part in kept] == [8 * n + 1 for n in range(10)]
    del kept, batch
    seen.clear()
    for _ in range(3):
        for batch in loader:
            seen[batch["row"].__array_interface__["data"][0]] += 1
    assert len(seen) <= 6 and sum(seen.values()) == 30


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Item:
    image: np.ndarray
    label: int


SAMPLES = {
    "array": lambda i: np.full((2, 2), i, np.uint8),
    "number": lambda i: i / 2,
    "tuple": lambda i: (np.full(3, i), i, f"name {i}"),
    "nested": lambda i: {"a": {"b": [i, True], "c": (np.float16(i),)}, 3: b"x"},
    "named": lambda i: Point(i, np.arange(2) + i),
    "data": lambda i: Item(np.ones((2, 3)) * i, i),
    "time": lambda i: {"at": np.datetime64(i, "D")},
}


class Kind:
    def __init__(self, kind, size=10):
        self.kind, self.size = kind, size

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        return SAMPLES[self.kind](i)


def stacked(samples):
    """The batch of samples, by other code: as the default of torch does."""
    first = samples[0]
    if isinstance(first, dict):
        return {name: stacked([sample[name] for sample in samples]) for name in first}
    if hasattr(first, "_fields"):
        return type(first)(*map(stacked, zip(*samples, strict=True)))
    if isinstance(first, tuple | list):
        return tuple(map(stacked, zip(*samples, strict=True)))
    if dataclasses.is_dataclass(first):
        fields = [field.name for field in dataclasses.fields(first)]
        return type(first)(**{name: stacked([getattr(sample, name) for sample in samples]) for name in fields})
    return list(samples) if isinstance(first, str | bytes) else np.stack(list(map(np.asarray, samples)))


def same(one, other):
    if isinstance(one, np.ndarray):
        return type(other) is np.ndarray and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and same(vars(one), vars(other))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_has_the_structure_of_a_sample(kind, workers, executors):
    for number, batch in enumerate(al.Loader(Kind(kind), 4, executor=executors[workers])):
        expected = stacked([SAMPLES[kind](i) for i in range(number * 4, min(10, number * 4 + 4))])
        assert same(expected, batch), (expected, batch)
    if kind in ("tuple", "nested"):
        assert batch.indices == (8, 9)


class Ragged:
    def __len__(self):
        return 9

    def __getitem__(self, i):
        return {"tokens": np.arange(1, i + 2), "boxes": np.ones((i, 4))}


def test_arrays_of_different_shapes(executors):
    loader = al.Loader(Ragged(), 5, executor=executors[2], ragged={"tokens": ("pad", -1), "boxes": "list"})
    first, second = loader
    assert first["tokens"].tolist()[:2] == [[1, -1, -1, -1, -1], [1, 2, -1, -1, -1]]
    assert second["tokens"].shape == (4, 9) and [box.shape for box in second["boxes"]] == [(n, 4) for n in range(5, 9)]
    with pytest.raises(ValueError, match="pass ragged=") as caught:
        list(al.Loader(Ragged(), 5, executor=executors[2]))
    assert "sample 1 of epoch 0" in caught.value.__notes__


def test_a_batch_becomes_tensors_without_a_copy(executors, monkeypatch):
    class Tensor:
        def __init__(self, array):
            assert array.__dlpack_device__() == (1, 0)
            self.array = np.from_dlpack(array)

    for name in ("torch", "jax.dlpack"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(from_dlpack=Tensor))
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace())
    [batch] = al.Loader(Kind("nested"), 10, executor=executors[2])
    for made in (batch.torch(), batch.jax(), al.torch(batch)):
        assert np.shares_memory(made["a"]["b"][0].array, batch["a"]["b"][0]) and made[3] == [b"x"] * 10
    [batch] = al.Loader(Kind("tuple"), 10, executor=executors[2])
    numbers, _, names = batch.torch()
    assert np.shares_memory(numbers.array, batch[0]) and names[1] == "name 1"


def test_tensors_of_torch(executors):
    torch = pytest.importorskip("torch")
    [batch] = al.Loader(Kind("tuple"), 10, executor=executors[2])
    tensor = batch.torch()[0]
    assert isinstance(tensor, torch.Tensor) and tensor.data_ptr() == batch[0].__array_interface__["data"][0]
    theirs = list(torch.utils.data.DataLoader(Kind("tuple"), 4))
    assert [len(b[1]) for b in theirs] == [len(b[1]) for b in al.Loader(Kind("tuple"), 4, executor=executors[2])]


def double(samples):
    return os.getpid(), np.concatenate([sample["row"] for sample in samples])


def test_collate_runs_in_a_worker(executors):
    batches = list(al.Loader(Numbers(10), 4, collate_fn=double, executor=executors[2]))
    assert all(pid != os.getpid() for pid, _ in batches)
    assert batches[2][1].tolist() == [8.0] * 3 + [9.0] * 3
    factor = 2
    made = al.Loader(Numbers(4), 4, collate=lambda some: factor * len(some), executor=executors[2])
    assert list(made) == [8]


def test_samplers(executors):
    class Sampler:
        epoch = None

        def __iter__(self):
            return iter([self.epoch, 3, 3, 0])

        def set_epoch(self, epoch):
            self.epoch = epoch

    loader = al.Loader(Numbers(9), 3, sampler=Sampler(), executor=executors[1])
    for epoch in range(3):
        assert [batch["index"].tolist() for batch in loader] == [[epoch, 3, 3], [0]]
    drawn = al.Loader(Numbers(9), 3, sampler=lambda rng: rng.choice(9, 6), seed=5, executor=executors[1])
    expected = np.random.default_rng([5, 0]).choice(9, 6).reshape(2, 3).tolist()
    assert [batch["index"].tolist() for batch in drawn] == expected


# ---- faults

ONCE, ALWAYS = "once", "always"


class Dying:
    """Samples some of which end their worker: in `__getitem__`, while they are written, or just after that."""

    def __init__(self, folder, step, when, bad=(5, 6, 17)):
        self.folder, self.step, self.when, self.bad = str(folder), step, when, bad
        self.last = None

    def __len__(self):
        return 40

    def die(self, i):
        if self.when == ONCE:
            try:
                os.close(os.open(f"{self.folder}/{i}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
        HOW[self.step.partition(" ")[2]]()

    def __getitem__(self, i, rng):
        if self.step.startswith("after") and self.last in self.bad:
            last, self.last = self.last, None
            self.die(last)
        self.last = i
        if self.step.startswith("read") and i in self.bad:
            self.die(i)
        row = np.full(3, i, np.float32)
        if self.step.startswith("write"):
            row = Written(self, i, row)
        return {"index": i, "row": row, "drawn": rng.random()}


class Written:
    """An array that is made when it is written into the batch."""

    def __init__(self, dataset, i, row):
        self.dataset, self.i, self.row = dataset, i, row

    def __array__(self, dtype=None, copy=None):
        if self.i in self.dataset.bad and sys._getframe(1).f_code.co_name == "_write":
            self.dataset.die(self.i)
        return self.row


def endless():
    while True:
        pass


def huge():
    np.ones(1 << 31, np.uint8)


def fail():
    raise OSError("a damaged file")


HOW = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "raise": fail,
    "hang": endless,
    "memory": huge,
}


@pytest.fixture(scope="module")
def limited():
    with arenite.Executor(2, output=None, memory_limit="1GiB") as executor:
        yield executor


@pytest.mark.parametrize("step", ["read kill", "read abort", "write kill", "write exit", "read raise", "after kill"])
def test_a_fault_that_does_not_repeat_costs_nothing(step, tmp_path, limited):
    loader = al.Loader(Dying(tmp_path, step, ONCE), 8, True, seed=3, executor=limited, prefetch=3)
    for epoch in range(2):
        assert taken(loader) == model(40, 8, 3, epoch, True, 0, 1, False)
    assert loader.failures == [] and len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("step", ["read kill", "read raise", "write abort", "read memory", "read hang"])
def test_a_bad_sample_is_replaced_by_the_same_one_everywhere(step, tmp_path, limited):
    found, states = [], []
    for _ in range(2):
        bad = (5,) if step == "read hang" else (5, 6, 17)
        dataset = Dying(tmp_path, step, ALWAYS, bad)
        loader = al.Loader(dataset, 8, True, seed=3, on_error="skip", deadline=0.5, executor=limited, prefetch=3)
        found.append(taken(loader))
        states.append(loader.state_dict())
        assert {failure.index for failure in loader.failures} == set(bad)
        for failure in loader.failures:
            assert failure.index in bad and isinstance(failure.cause, Exception)
            if step == "read raise":
                assert "a damaged file" in failure.stack
    assert found[0] == found[1] and states[0] == states[1]
    expected = model(40, 8, 3, 0, True, 0, 1, False)
    seen = {i for batch, _, _ in found[0] for i in batch}
    assert not seen & set(bad) and set(range(40)) - seen == set(bad)
    for (batch, rows, _), (wanted, _, _) in zip(found[0], expected, strict=True):
        left = [i for i, want in zip(batch, wanted, strict=True) if want not in bad]
        assert left == [i for i in wanted if i not in bad]
        assert rows == [[float(i)] * 3 for i in batch]
    assert {index for _, index in states[0]["skipped"]} == set(bad)


def test_an_error_names_the_sample_and_the_next_epoch_goes_on(tmp_path, limited):
    loader = al.Loader(Dying(tmp_path, "read abort", ALWAYS, [17]), 8, executor=limited)
    with pytest.raises(arenite.WorkerDied) as caught:
        list(loader)
    assert "sample 17 of epoch 0" in caught.value.__notes__
    assert [failure.index for failure in loader.failures] == [17] and "__getitem__" in loader.failures[0].stack
    retried = al.Loader(Dying(tmp_path, "read abort", ALWAYS, [17]), 8, on_error="retry", executor=limited)
    assert next(iter(retried))["index"].tolist() == list(range(8))
    with pytest.raises(arenite.WorkerDied):
        list(retried)


def test_a_bad_sample_in_collated_batches(tmp_path, limited):
    dataset = Dying(tmp_path, "read kill", ALWAYS)
    loader = al.Loader(dataset, 8, on_error="skip", collate=indices_of, executor=limited)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [8] * 5
    assert set(range(40)) - {i for batch in batches for i in batch} == {5, 6, 17}


def indices_of(samples):
    return [sample["index"] for sample in samples]


def test_workers_killed_from_outside_cost_nothing(executors):
    executor, chance = executors[3], random.Random(1)
    loader = al.Loader(Numbers(200), 8, True, seed=1, executor=executor)
    for epoch in range(3):
        found = []
        for batch in loader:
            found += taken([batch])
            # A worker that is started at the moment has no process.
            pids = [worker.pid for worker in executor.stats().workers if worker.pid > 0]
            if pids and chance.random() < 0.3:
                # The one that was killed before may still be listed.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(pids), signal.SIGKILL)
        assert found == model(200, 8, 1, epoch, True, 0, 1, False)
    assert loader.failures == []


class Bad:
    def __init__(self, size, sample):
        self.size, self.sample = size, sample

    def __len__(self):
        if self.size is None:
            raise OSError("no list")
        return self.size

    def __getitem__(self, i):
        return self.sample if i else {"a": 1}


@pytest.mark.parametrize(
    ("sample", "error", "text"),
    [
        (None, ValueError, "NoneType"),
        ({"a": None}, TypeError, "object"),
        ({"a": 1.5}, TypeError, "float64 at 'a'"),
        ({"a": [1]}, ValueError, "shape (1,) at 'a'"),
        ({"b": 1}, ValueError, "lacks 'a'"),
        ({}, ValueError, "a dict with []"),
    ],
)
def test_samples_that_differ_from_the_first(sample, error, text, executors):
    with pytest.raises(error) as caught:
        list(al.Loader(Bad(3, sample), 3, executor=executors[2]))
    assert text in str(caught.value) and "sample 1 of epoch 0" in caught.value.__notes__


def test_datasets_without_samples(executors):
    assert list(al.Loader(Bad(0, 1), 3, executor=executors[2])) == []
    with pytest.raises(OSError, match="no list"):
        list(al.Loader(Bad(None, 1), 3, executor=executors[2]))
    with pytest.raises(TypeError, match="None as a whole"):
        list(al.Loader([None], 3, executor=executors[2]))


def test_names_of_dataloader(executors):
    same = {"pin_memory": False, "persistent_workers": True, "timeout": 0, "worker_init_fn": None, "num_workers": 1}
    with al.Loader(range(3), 2, **same) as loader:
        assert [batch.tolist() for batch in loader] == [[0, 1], [2]]
    refused = {"pin_memory": True, "worker_init_fn": print, "prefetch_factor": 2, "generator": 1, "batch_sampler": [1]}
    for name, value in refused.items():
        with pytest.raises(TypeError, match=f"no {name}=.*: pass "):
            al.Loader(range(3), 2, **{name: value})
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        al.Loader(range(3), 2, colour=1)


def test_ranks_of_torchrun(monkeypatch, executors):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [batch.tolist() for batch in al.Loader(range(5), 2, executor=executors[2])] == [[1, 3], [0]]
    assert [batch.tolist() for batch in al.Loader(range(5), 2, rank=0, world=1, executor=executors[2])][2] == [4]


def test_a_script_without_a_guard(tmp_path):
    """Its class is not importable in workers; nothing is left after its end."""
    source = """
    import os, arenite.loader as al
    class Lines:
        def __init__(self): self.change = lambda i: i + offset
        def __len__(self): return 6
        def __getitem__(self, i): return self.change(i)
    class Plain:
        def __len__(self): return 4
        def __getitem__(self, i): return os.abort() if i == 2 else i + offset
    offset = 10
    loader = al.Loader(Lines(), 4, workers=2)
    print([batch.tolist() for batch in loader])
    plain = al.Loader(Plain(), 4, workers=2, on_error="skip")
    print(len(list(plain)), len(plain.failures) > 0)
    """
    ran = harness.script(source, cwd=tmp_path)
    assert ran.out.split("\n")[0] == "[[10, 11, 12, 13], [14, 15]]" and "1 True" in ran.out, ran
    assert (ran.code, ran.left) == (0, []), ran


# ---- streams and columns


def shard(number, rng):
    for k in range(number):
        yield {"shard": number, "number": k, "drawn": rng.random()}


def plain(batches):
    return [{name: values.tolist() for name, values in batch.items()} for batch in batches]


def stream_model(shards, lanes, batch_size, seed, epoch, shuffle, rank, world, drop_last, ends=()):
    """The batches of a stream, in plain Python."""
    numbers = list(range(len(shards)))
    if shuffle:
        numbers = np.random.default_rng([seed, epoch]).permutation(len(shards)).tolist()
    numbers = numbers[rank::world]
    queues = []
    for lane in range(lanes):
        samples = []
        for n in numbers[lane::lanes]:
            draw = np.random.default_rng([seed, epoch, n])
            drawn = [(shards[n], k, draw.random()) for k in range(shards[n])]
            samples += drawn[: dict(ends).get(shards[n])]
        queues.append([samples[k : k + batch_size] for k in range(0, len(samples), batch_size)])
    found = [batch for turn in itertools.zip_longest(*queues) for batch in turn if batch is not None]
    if drop_last:
        found = [batch for batch in found if len(batch) == batch_size]
    names = "shard", "number", "drawn"
    return [dict(zip(names, map(list, zip(*batch, strict=True)), strict=True)) for batch in found]


@pytest.mark.parametrize("round", range(8))
def test_a_stream_has_the_order_of_its_model(round, executors):
    chance = random.Random(f"{os.environ['ARENITE_SEED']} stream {round}")
    shards = [chance.randrange(12) for _ in range(chance.randrange(10))]
    lanes, batch_size, seed = chance.randrange(1, 5), chance.randrange(1, 6), chance.randrange(100)
    shuffle, drop_last, world = chance.random() < 0.6, chance.random() < 0.4, chance.choice([1, 2])
    rank = chance.randrange(world)
    expected = [stream_model(shards, lanes, batch_size, seed, e, shuffle, rank, world, drop_last) for e in range(2)]

    def make(seed=seed):
        return al.Loader(
            al.Stream(shard, shards, lanes), batch_size, shuffle, seed=seed, rank=rank, world=world,
            drop_last=drop_last, prefetch=chance.randrange(5), executor=executors[chance.randrange(4)],
        )  # fmt: skip

    loader, states = make(), []
    for epoch in range(2):
        found = []
        for batch in loader:
            found += plain([batch])
            states.append(loader.state_dict())
        assert found == expected[epoch], (lanes, shards)
        if not found:
            return
    for state in chance.sample(states, min(3, len(states))):
        resumed = make(seed=0)
        resumed.load_state_dict(state)
        rest = plain(resumed)
        if state["epoch"] < 2:
            assert rest == expected[state["epoch"]][state["batch"] :], state


class Crashing:
    def __init__(self, folder, when, how):
        self.folder, self.when, self.how = str(folder), when, how

    def __call__(self, number, rng):
        for k in range(number):
            if (number, k) in ((7, 3), (5, 0)):
                try:
                    if self.when == ONCE:
                        os.close(os.open(f"{self.folder}/{number}-{k}", os.O_CREAT | os.O_EXCL))
                    HOW[self.how]()
                except FileExistsError:
                    pass
            yield {"shard": number, "number": k, "drawn": rng.random()}


@pytest.mark.parametrize("how", ["kill", "raise"])
def test_a_stream_whose_shards_crash(how, tmp_path, limited):
    shards = [4, 7, 6, 5, 8, 3]
    once = al.Loader(al.Stream(Crashing(tmp_path, ONCE, how), shards, 2), 4, executor=limited)
    assert plain(once) == stream_model(shards, 2, 4, 0, 0, False, 0, 1, False)
    assert once.failures == [] and len(os.listdir(tmp_path)) == 2
    skipping = al.Loader(al.Stream(Crashing(tmp_path, ALWAYS, how), shards, 2), 4, on_error="skip", executor=limited)
    assert plain(skipping) == stream_model(shards, 2, 4, 0, 0, False, 0, 1, False, {7: 3, 5: 0}.items())
    assert sorted(failure.index for failure in skipping.failures) == [1, 3]
    raising = al.Loader(al.Stream(Crashing(tmp_path, ALWAYS, how), shards, 2), 4, executor=limited)
    with pytest.raises(OSError if how == "raise" else arenite.WorkerDied) as caught:
        list(raising)
    assert any(note.startswith("shard ") for note in caught.value.__notes__)


class IterableDataset:
    def __iter__(self):
        return iter(range(5))

    def __getitem__(self, index):
        raise NotImplementedError


def test_an_iterable_dataset(executors):
    loader = al.Loader(IterableDataset(), 2, executor=executors[2])
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4]]
    with pytest.raises(TypeError, match="no length"):
        len(loader)


ROWS = [
    {"path": f"/päth/{i}", "label": i, "weight": i / 3, "is_new": i % 2 == 0, "raw": b"\0" * i, "tags": ["a"] * i,
     "box": np.arange(4) + i, "big": 1 << (60 + i), "mixed": i if i % 2 else None}
    for i in range(9)
]  # fmt: skip


class Table:
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {**self.rows[i], "again": self.rows["path"][i]}


@pytest.mark.parametrize("is_shared", [False, True])
def test_rows_as_columns(is_shared, executors):
    made = al.share(ROWS, executors[2] if is_shared else None)
    assert len(made) == 9 and type(made[2]["label"]) is int and type(made[2]["is_new"]) is bool
    for one, other in zip(made, ROWS, strict=True):
        assert list(one) == list(other)
        assert all(np.array_equal(one[name], other[name]) and type(one[name]) is type(other[name]) for name in one)
    assert made[-1]["path"] == "/päth/8" and [row["label"] for row in made[1:3]] == [1, 2]
    with pytest.raises(IndexError):
        made[9]
    plain_rows = [{name: row[name] for name in ("path", "label", "box")} for row in ROWS]
    [batch] = al.Loader(Table(al.share(plain_rows)), 9, executor=executors[2])
    assert batch["path"] == batch["again"] == [row["path"] for row in ROWS] and batch["box"][3].tolist() == [3, 4, 5, 6]
    with pytest.raises(ValueError, match="row 1 has"):
        al.share([{"a": 1}, {"b": 1}])


def test_columns_of_arrow():
    pyarrow = pytest.importorskip("pyarrow")
    rows = [{"a": i, "b": str(i), "c": None if i else 2} for i in range(5)]
    assert list(al.share(pyarrow.Table.from_pylist(rows))) == rows


def test_a_dataset_is_sent_once(executors):
    """Its arrays have one copy, and tasks only get their addresses."""
    dataset = Table(al.share([{"path": str(i), "box": np.full(1000, i)} for i in range(500)]))
    loader = al.Loader(dataset, 10, executor=executors[2])
    next(iter(loader))
    before = executors[2].stats().bytes_copied
    assert len(list(loader)) == 50
    assert executors[2].stats().bytes_copied - before < 4_000_000 / 4
