"""Exporting a part of a store: arrays with their names, and a manifest that says what they are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from babelscope import layout
from babelscope.activations_store.bfloat16 import BFLOAT16
from babelscope.activations_store.hdf5 import read_checked
from babelscope.activations_store.numbers import stored_dtype
from babelscope.activations_store.packing import Progress
from babelscope.activations_store.reader import ActivationStore
from babelscope.activations_store.selection import Selection
from babelscope.activations_store.shard import group_name
from babelscope.schema import Site

FORMAT = "babelscope-export/1"

Write: TypeAlias = Callable[[Path, "Export", Progress], None]


@dataclass(frozen=True, slots=True)
class Array:
    """One array of an export, not read yet.

    Parameters
    ----------
    name : str
        As `en/resid.post@3`, or `en/resid.post/row_splits`.
    about : mapping
        site, layer and language, or site, language and coordinate; axes.
    shape : tuple of int
    dtype : numpy dtype
        `ml_dtypes.bfloat16` where that is stored, float32 where int8 is.
    read : callable
        Reads it: an ndarray of `shape` and `dtype`.
    """

    name: str
    about: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    read: Callable[[], NDArray[np.generic]]

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def widened(self) -> "Array":
        """The same with bfloat16 as float32, which holds every value of it."""
        if self.dtype != BFLOAT16:
            return self
        return replace(self, dtype=np.dtype(np.float32), read=lambda: self.read().astype(np.float32))

    def described(self) -> dict[str, Any]:
        """What a manifest says about it; `dtype` is that of the numbers, however their bits are kept."""
        return {"name": self.name, **self.about, "shape": list(self.shape), "dtype": self.dtype.name}


@dataclass(frozen=True, slots=True)
class Export:
    """Arrays and what is common to them.

    Parameters
    ----------
    arrays : tuple of Array
    about : mapping
        JSON-ready: store, model, position, languages, items, units.
    """

    arrays: tuple[Array, ...]
    about: Mapping[str, Any]

    def manifest(self) -> dict[str, Any]:
        """`about` and the description of every array."""
        return {**self.about, "arrays": [array.described() for array in self.arrays]}

    def __str__(self) -> str:
        about = self.about
        return layout.facts({
            "arrays": f"{len(self.arrays)}, {sum(array.size for array in self.arrays) / 1e6:,.1f} MB",
            "items": f"{len(about['items'])}, in each of {', '.join(about['languages'])}",
            "position": f"{about['position']}",
            **({"dtype": "int8, decoded to float32"} if about["stored_dtype"] == "int8" else {}),
        })  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The manifest."""
        return self.manifest()


@dataclass(frozen=True, slots=True)
class Exporter:
    """A format.

    Parameters
    ----------
    write : callable
        Writes an `Export` to a path that does not exist.
    parts : frozenset of str
        Names that the folder it writes may hold; empty where it writes one file.
    widens : bool
        Whether the format has no room for bfloat16 bits, so that float32 is written.
    """

    write: Write
    parts: frozenset[str] = frozenset()
    widens: bool = False


def exported(selections: Sequence[Selection], *, float32: bool = False) -> Export:
    """Name and describe everything that the selections hold; only small datasets are read.

    Parameters
    ----------
    selections : sequence of Selection
        One per kind of site, of one store, with the same languages and position.
    float32 : bool
        Give bfloat16 as float32.

    Raises
    ------
    BabelScopeError
        If no item is in every language, or a shard is damaged.
    """
    first = selections[0]
    store = first.store
    first.refuse_empty()
    arrays = tuple(array for selection in selections for array in _arrays(selection))
    about = {
        "format": FORMAT,
        "store": store.fingerprint,
        "model": store.plan.model.source,
        "architecture": store.plan.model.architecture,
        "n_layers": store.plan.model.n_layers,
        "n_encoder_layers": store.plan.model.n_encoder_layers,
        "position": str(first.position),
        "units": "1",
        "stored_dtype": store.plan.dtype,
        "lossy": store.plan.lossy,
        "languages": list(first.languages),
        "items": list(first.items),
    }
    summaries = {"summaries": list(store.summaries)} if any("summary" in s.sites[0].axes for s in selections) else {}
    return Export(tuple(array.widened() if float32 else array for array in arrays), {**about, **summaries})


def bits(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array as NumPy itself knows it: bfloat16 as uint16 with the same bits."""
    return np.ascontiguousarray(values).view(np.uint16) if values.dtype == BFLOAT16 else values


def _arrays(selection: Selection) -> Iterator[Array]:
    name, axes = selection.sites[0].name, selection.sites[0].axes
    for language in selection.languages:
        unit, dtype, splits = _form(selection, language)
        rows, axis = len(selection.items), "item"
        if splits is not None:
            rows, axis = int(splits[-1]), selection.position.row_axis
            yield _coordinate(name, language, "row_splits", splits)
        for site in selection.sites:
            about = {"site": name, "layer": site.layer, "language": language, "axes": [axis, *axes]}
            read = _reader(selection, site, language)
            yield Array(f"{language}/{site}", about, (rows, *unit), dtype, read)
    for beside in selection.position.coordinates:
        for language, found in zip(selection.languages, selection.coordinate(beside), strict=True):
            yield _coordinate(name, language, beside, np.concatenate(found))


def _coordinate(site: str, language: str, name: str, values: NDArray[np.generic]) -> Array:
    about = {
        "site": site,
        "language": language,
        "coordinate": name,
        "axes": ["item" if name == "row_splits" else "row"],
    }
    return Array(f"{language}/{site}/{name}", about, values.shape, values.dtype, lambda: values)


def _reader(selection: Selection, site: Site, language: str) -> Callable[[], NDArray[np.generic]]:
    return lambda: selection.stored(site, language)[0]


def _form(selection: Selection, language: str) -> tuple[tuple[int, ...], "np.dtype[Any]", NDArray[np.int64] | None]:
    """Shape of a unit, dtype, and where the rows of each item end."""
    store: ActivationStore = selection.store
    group = group_name(selection.sites[0].name, selection.position)
    lengths = []
    for block, rows, places in selection.shards(language):
        with store.shard(language, block) as file:
            unit, dtype = file[group]["value"].shape[2:], stored_dtype(file[group])
            if selection.position.ragged:
                own = np.diff(read_checked(file[group]["row_splits"]).astype(np.int64))[rows]
                lengths += list(zip(places.tolist(), own.tolist(), strict=True))
    if not selection.position.ragged:
        return unit, dtype, None
    return unit, dtype, np.cumsum([0, *(n for _, n in sorted(lengths))], dtype=np.int64)
