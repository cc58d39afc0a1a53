"""Slices of one array that tasks write in place. The oracle is numpy: the same program with plain arrays, and
`shares_memory`, which compares element by element."""

import os
import random

import arenite
import harness
import numpy as np
import pytest


@pytest.fixture(scope="module", params=[1, 3])
def ex(request):
    with arenite.Executor(2, lanes=request.param) as executor:
        yield executor


def some_slice(draw, count):
    """A slice of an axis, mostly with elements: often a tile, sometimes with steps, or backwards."""
    edges = sorted(draw.randrange(-1, count + 1) for _ in range(2))
    step = draw.choice((1, 1, 1, 2, 3, 5))
    part = slice(max(edges[0], 0), edges[1] + 1, step)
    return part if draw.random() < 0.8 else slice(edges[1], edges[0] if edges[0] >= 0 else None, -step)


def some_view(draw, array):
    view = array[tuple(some_slice(draw, count) for count in array.shape[: draw.randrange(array.ndim + 1)])]
    return view.T if draw.random() < 0.3 else view


def hold(array, gate):
    open(gate).close()
    array[...] = 7


@pytest.mark.parametrize("shape", [(4096,), (12, 9), (70, 90), (5, 6, 7), (3, 4, 3, 4), (2, 3, 2, 2, 3)])
@pytest.mark.parametrize("kind", ["u1", "f8"])
def test_slices_with_a_common_element_are_refused(ex, tmp_path, shape, kind):
    draw = random.Random(f"{os.environ['ARENITE_SEED']} {shape} {kind}")
    array = ex.zeros(shape, kind)
    refused = 0
    for number in range(8):
        while not (held := some_view(draw, array)).size:
            pass
        gate = tmp_path / f"gate{number}"
        os.mkfifo(gate)
        task = ex.submit(hold, arenite.mut(held), gate)
        try:
            for _ in range(25):
                other, read = some_view(draw, array), some_view(draw, array)
                if np.shares_memory(held, other):
                    refused += 1
                    with pytest.raises(ValueError, match="lent to another task"):
                        ex.submit(np.sum, arenite.mut(other))
                elif np.shares_memory(other, read):
                    with pytest.raises(ValueError, match="another argument reads"):
                        ex.submit(np.add, arenite.mut(other), read)
                else:
                    with harness.waiting("a task with the other slice"):
                        assert ex.submit(shapes, arenite.mut(other), read).result() == (other.shape, read.shape)
        finally:
            with harness.waiting("the task to open its gate"):
                open(gate, "w").close()
        task.result()
        assert (held == 7).all()
        array[...] = 0
    assert refused > 20


def shapes(*arrays):
    return tuple(array.shape for array in arrays)


def add(tile, number):
    for row in tile:
        row += number


def tiles(shape, size):
    corners = np.ndindex(*(-(-count // size) for count in shape))
    return [tuple(slice(at * size, (at + 1) * size) for at in corner) for corner in corners]


@pytest.mark.parametrize(("shape", "size"), [((500, 700), 64), ((40, 50, 60), 17), ((9, 11), 2)])
def test_tiles_are_written_in_place(ex, shape, size):
    """Many tiles are on each page, and the workers write them at the same time."""
    array, model = ex.zeros(shape), np.zeros(shape)
    for turn in range(3):
        for future in [ex.submit(add, arenite.mut(array[at]), n + turn) for n, at in enumerate(tiles(shape, size))]:
            future.result()
        for number, at in enumerate(tiles(shape, size)):
            add(model[at], number + turn)
        assert (array == model).all()


def test_every_slice_has_its_own_elements(ex):
    array, model = ex.zeros((60, 64), "i4"), np.zeros((60, 64), "i4")
    parts = [np.s_[start::3, column::-4] for start in range(3) for column in range(60, 64)]
    for part in parts:
        add(model[part].T, part[0].start + 10 * part[1].start)
    for future in [ex.submit(add, arenite.mut(array[p].T), p[0].start + 10 * p[1].start) for p in parts]:
        future.result()
    assert (array == model).all() and array.all()


def subtract_product(tile, left, right):
    tile -= left @ right.T


def solve(tile, diagonal):
    tile[...] = np.linalg.solve(diagonal, tile.T).T


def factorize(tile):
    tile[...] = np.linalg.cholesky(tile)


def test_tasks_read_tiles_beside_those_that_they_write(ex):
    """The Cholesky decomposition in place, tile by tile."""
    count, size = 5, 24
    made = np.random.default_rng(1).standard_normal((count * size, count * size))
    array = ex.array(made @ made.T + 1000 * np.eye(count * size))
    expected = np.linalg.cholesky(array)

    def tile(row, column):
        return array[row * size : (row + 1) * size, column * size : (column + 1) * size]

    for k in range(count):
        ex.submit(factorize, arenite.mut(tile(k, k))).result()
        below = range(k + 1, count)
        for future in [ex.submit(solve, arenite.mut(tile(i, k)), tile(k, k)) for i in below]:
            future.result()
        pairs = [(i, j) for i in below for j in below if j <= i]
        for future in [ex.submit(subtract_product, arenite.mut(tile(i, j)), tile(i, k), tile(j, k)) for i, j in pairs]:
            future.result()
    assert np.allclose(np.tril(array), expected)


def exchange(one, other):
    one[...], other[...] = other.copy(), one.copy()


def test_a_task_writes_several_tiles(ex):
    array = ex.array(np.arange(100.0).reshape(10, 10))
    model = np.array(array)
    ex.submit(exchange, arenite.mut(array[:5, :5]), arenite.mut(array[:5, 5:])).result()
    exchange(model[:5, :5], model[:5, 5:])
    assert (array == model).all()
    with pytest.raises(ValueError, match="overlapping"):
        ex.submit(exchange, arenite.mut(array[:5, :5]), arenite.mut(array[4:9, 4:9]))


def test_a_tile_without_elements(ex):
    array = ex.zeros((4, 4))
    assert ex.submit(shapes, arenite.mut(array[2:2]), array).result() == ((0, 4), (4, 4))
