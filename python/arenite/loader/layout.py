"""The structure of samples: which arrays a batch consists of, and how batches are put together from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Union

import numpy

#: Kinds of elements that a batch has in an array. Others, such as text, are collected in lists.
_NUMBERS = "?biufcmM"

#: What to do with arrays of different shapes: "list", "pad", or ("pad", value).
Ragged = Union[str, tuple[str, float]]


class Leaf(NamedTuple):
    """An array, number or object in each sample. `path`: names and positions that lead to it, joined by dots."""

    path: str
    #: Of one sample. None for leaves that are collected in lists.
    shape: tuple[int, ...] | None
    dtype: numpy.dtype[Any] | None
    #: The value that fills up arrays of different lengths, if this is such a leaf.
    fill: float | None = None


class Node(NamedTuple):
    """A dictionary, tuple, list or data class in each sample."""

    kind: str
    type: Any
    names: tuple[Any, ...]
    children: tuple[Any, ...]


Tree = Union[Leaf, Node]


def parts_of(value: Any) -> tuple[str, tuple[Any, ...], list[Any]] | None:
    """Returns kind, names and values of a container. Returns None for other values."""
    if isinstance(value, dict):
        return "dict", tuple(value), list(value.values())
    if isinstance(value, tuple | list):
        kind = "named" if hasattr(value, "_fields") else "tuple"
        return kind, tuple(range(len(value))), list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = tuple(field.name for field in dataclasses.fields(value))
        return "data", names, [getattr(value, name) for name in names]
    return None


def describe(value: Any, ragged: dict[str, Ragged], path: str = "") -> Tree:
    """Returns the structure of a sample."""
    if (found := parts_of(value)) is not None:
        kind, names, values = found
        paths = [f"{path}.{name}" if path else str(name) for name in names]
        children = tuple(describe(one, ragged, below) for one, below in zip(values, paths, strict=True))
        return Node(kind, type(value), names, children)
    if value is None:
        raise TypeError(f"the sample has None {_at(path)}, which cannot be in a batch")
    array = numpy.asarray(value)
    rule = ragged.get(path)
    if rule is not None:
        name, fill = (rule, 0) if isinstance(rule, str) else rule
        if name not in ("list", "pad"):
            raise ValueError(f'ragged must be "list", "pad" or ("pad", value), not {rule!r}')
        return Leaf(path, None, None, fill if name == "pad" else None)
    if array.dtype.kind not in _NUMBERS:
        return Leaf(path, None, None)
    return Leaf(path, array.shape, array.dtype)


def leaves(tree: Tree) -> list[Leaf]:
    if isinstance(tree, Leaf):
        return [tree]
    return [leaf for child in tree.children for leaf in leaves(child)]


def values_of(tree: Tree, sample: Any) -> list[Any]:
    """Returns the values of a sample at the leaves of the first sample."""
    if isinstance(tree, Leaf):
        return [sample]
    if tree.kind == "dict" and type(sample) is dict and len(sample) == len(tree.names):
        try:
            values = [sample[name] for name in tree.names]
        except KeyError as error:
            raise ValueError(f"the sample lacks {error}, which the first sample has") from None
    else:
        found = parts_of(sample)
        if found is None or found[0] != tree.kind or set(found[1]) != set(tree.names):
            shown = type(sample).__name__ if found is None else f"{type(sample).__name__} with {list(found[1])}"
            raise ValueError(f"the sample is a {shown}, the first one a {tree.type.__name__} with {list(tree.names)}")
        by_name = dict(zip(found[1], found[2], strict=True))
        values = [by_name[name] for name in tree.names]
    if all(isinstance(child, Leaf) for child in tree.children):
        return values
    return [one for child, value in zip(tree.children, values, strict=True) for one in values_of(child, value)]


def write(tree: Tree, outs: Sequence[Any], samples: Iterable[Any]) -> list[list[Any]]:
    """Writes samples into a part of a batch, which has an array for each leaf of a fixed shape. Returns the values of
    the other leaves."""
    found, fixed = leaves(tree), iter(outs)
    lists: list[list[Any]] = [[] for leaf in found if leaf.shape is None]
    others = iter(lists)
    targets = [(leaf, next(others if leaf.shape is None else fixed)) for leaf in found]
    for row, sample in enumerate(samples):
        for (leaf, out), value in zip(targets, values_of(tree, sample), strict=True):
            if leaf.shape is None:
                out.append(value)
            else:
                _write(leaf, out, row, value)
    return lists


def _write(leaf: Leaf, out: Any, row: int, value: Any) -> None:
    array = numpy.asarray(value)
    if array.shape != leaf.shape:
        raise ValueError(
            f"the sample has shape {array.shape} {_at(leaf.path)}, the first one {leaf.shape}: make them equal, or "
            f'pass ragged={{{leaf.path!r}: "list"}} or "pad"'
        )
    if array.dtype != leaf.dtype and not numpy.can_cast(array.dtype, leaf.dtype, "same_kind"):  # type: ignore[arg-type]
        raise TypeError(f"the sample has {array.dtype} {_at(leaf.path)}, the first one {leaf.dtype}")
    out[row] = array


def collected(leaf: Leaf, values: list[Any]) -> Any:
    """Returns the values of a leaf with different shapes: a list, or an array that is filled up."""
    if leaf.fill is None:
        return values
    arrays = [numpy.asarray(value) for value in values]
    longest = [max(lengths) for lengths in zip(*(array.shape for array in arrays), strict=True)]
    out = numpy.full((len(arrays), *longest), leaf.fill, arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[tuple(map(slice, array.shape))] = array
    return out


class Batch(dict[Any, Any]):
    """A batch of samples that are dictionaries: arrays by name."""

    #: The indices of the samples, in order.
    indices: tuple[int, ...] = ()

    def torch(self) -> Any:
        """Returns the batch with tensors of PyTorch over the same memory."""
        return torch(self)

    def jax(self) -> Any:
        """Returns the batch with arrays of JAX, over the same memory if JAX takes it."""
        return jax(self)


class BatchTuple(tuple[Any, ...]):
    """A batch of samples that are tuples or lists."""

    indices: tuple[int, ...] = ()
    torch = Batch.torch
    jax = Batch.jax


def build(tree: Tree, values: Iterator[Any], indices: tuple[int, ...] | None = None) -> Any:
    """Returns the structure of a sample with these values at its leaves."""
    if isinstance(tree, Leaf):
        return next(values)
    children = [build(child, values) for child in tree.children]
    if tree.kind == "named":
        return tree.type(*children)
    if tree.kind == "data":
        return tree.type(**dict(zip(tree.names, children, strict=True)))
    named = dict(zip(tree.names, children, strict=True))
    if indices is None:
        return named if tree.kind == "dict" else tuple(children)
    batch: Any = Batch(named) if tree.kind == "dict" else BatchTuple(children)
    batch.indices = indices
    return batch


def torch(batch: Any) -> Any:
    """Returns a batch with tensors of PyTorch over the same memory in the place of its arrays."""
    from torch import from_dlpack

    return _converted(batch, from_dlpack)


def jax(batch: Any) -> Any:
    """Returns a batch with arrays of JAX in the place of its arrays, over the same memory if JAX takes it."""
    from jax.dlpack import from_dlpack

    return _converted(batch, from_dlpack)


def _converted(value: Any, convert: Callable[[Any], Any]) -> Any:
    if isinstance(value, numpy.ndarray):
        return convert(value) if value.dtype.kind in "?biufc" else value
    if isinstance(value, list) or (found := parts_of(value)) is None:
        return value
    kind, names, values = found
    values = [_converted(one, convert) for one in values]
    if kind == "named":
        return type(value)(*values)
    if kind == "tuple":
        return tuple(values)
    named = dict(zip(names, values, strict=True))
    return named if kind == "dict" else type(value)(**named)


def _at(path: str) -> str:
    return f"at {path!r}" if path else "as a whole"
