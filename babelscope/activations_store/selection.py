"""A lazy part of a store, aligned by item over languages and never filled."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.activations_store.bfloat16 import BFLOAT16, read_rows
from babelscope.activations_store.hdf5 import read_checked
from babelscope.activations_store.shard import group_name
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Position, Site

if TYPE_CHECKING:
    from babelscope.activations_store.reader import ActivationStore


@dataclass(frozen=True)
class Selection:
    """Sites of one kind x languages x items. Nothing is read before a method asks for it.

    Attributes
    ----------
    sites : tuple of Site
    languages : tuple of str
    wanted : tuple of int or None
        Items asked for, as indices into the store; None for all.
    position : Position
    """

    store: "ActivationStore" = field(repr=False)
    sites: tuple[Site, ...]
    languages: tuple[str, ...]
    wanted: tuple[int, ...] | None
    position: Position

    @property
    def layers(self) -> tuple[int | None, ...]:
        """Layers in the order of `sites`."""
        return tuple(s.layer for s in self.sites)

    @cached_property
    def items(self) -> tuple[str, ...]:
        """Items that every language has, in the order asked for (row order by default)."""
        return tuple(self.store.items[i] for i in self._chosen)

    @property
    def dropped(self) -> pd.DataFrame:
        """Items left out, with the language that lacks them and why: item, language, reason."""
        failed = self.store.failed.set_index(["item", "language"])["reason"].to_dict()
        names = self.store.items
        rows = [
            (names[i], language, failed.get((names[i], language), "not captured yet"))
            for language in self.languages
            for i in self._asked
            if i not in self._have[language]
        ]
        return pd.DataFrame(rows, columns=["item", "language", "reason"])

    def numpy(self) -> NDArray[np.generic]:
        """Read the values.

        Returns
        -------
        ndarray
            (language, item, *unit) for one site; (layer, language, item, *unit) for several. float32 for
            stores in bfloat16, which NumPy lacks; the captured dtype otherwise.

        Raises
        ------
        BabelScopeError
            If no item is in every language, the position is ragged, or a shard is damaged.
        """
        if self.position.ragged:
            raise BabelScopeError(f"position {self.position} has many rows per item", "use .ragged()")
        self.refuse_empty()
        out: NDArray[np.generic] | None = None
        for a, language in enumerate(self.languages):
            for block, rows, places in self.shards(language):
                with self.store.shard(language, block) as file:
                    value = self._group(file)["value"]
                    for s, layer in enumerate(self._stored_layers):
                        start, stop = int(rows[0]), int(rows[-1]) + 1
                        found = _numeric(read_rows(value, layer, start, stop))
                        if out is None:
                            shape = (len(self.sites), len(self.languages), len(self._chosen), *found.shape[1:])
                            out = np.empty(shape, found.dtype)
                        out[s, a, places] = found[rows - start]
        assert out is not None  # refuse_empty left at least one item
        return out[0] if len(self.sites) == 1 else out

    def ragged(self, *, special: bool = True) -> list[list[NDArray[np.generic]]]:
        """Read one site at position `all` or `words`: per language, per item, (row, *unit).

        Parameters
        ----------
        special : bool
            False leaves out the rows of special tokens, so that an item may have none left.

        Raises
        ------
        BabelScopeError
            If several layers are selected, the position has one row per item, or no item is in every language.
        """
        if not self.position.ragged or len(self.sites) != 1:
            raise BabelScopeError("ragged() reads one site at position all or words", "use .numpy()")
        self.refuse_empty()
        found = [self._rows(g, "value") for g in self.languages]
        if special or "special" not in self.position.coordinates:
            return found
        flags = self.coordinate("special")
        return [
            [x[flag == 0] for x, flag in zip(rows, marks, strict=True)]
            for rows, marks in zip(found, flags, strict=True)
        ]

    def coordinate(self, name: str) -> list[list[NDArray[np.generic]]]:
        """Read what is kept beside the rows of `ragged`: per language, per item, (row,).

        Parameters
        ----------
        name : str
            `token_id` or `special` (1 or 0) at position `all`; `char_start` or `char_stop` of each word at `words`.

        Raises
        ------
        BabelScopeError
            If this position keeps nothing of that name, or no item is in every language.
        """
        if name not in self.position.coordinates:
            raise unknown_name(f"coordinate of position {self.position}", name, self.position.coordinates)
        self.refuse_empty()
        return [self._rows(g, name) for g in self.languages]

    def stored(self, site: Site, language: str) -> tuple[NDArray[np.generic], NDArray[np.int64] | None]:
        """Read one site in one language in the dtype that was captured, at any position.

        Returns
        -------
        values : ndarray
            (item, *unit), or (row, *unit) at ragged positions. bfloat16 is `ml_dtypes.bfloat16`.
        row_splits : ndarray of int64 or None
            At ragged positions (item + 1,): rows of item i are `row_splits[i]:row_splits[i + 1]`.

        Raises
        ------
        BabelScopeError
            If no item is in every language, or a shard is damaged.
        """
        self.refuse_empty()
        layer = self.store.layers(site.name).index(site.layer)
        found: dict[int, NDArray[np.generic]] = {}
        for block, rows, places in self.shards(language):
            with self.store.shard(language, block) as file:
                group = self._group(file)
                splits = read_checked(group["row_splits"]) if self.position.ragged else np.arange(rows[-1] + 2)
                start = int(splits[rows[0]])
                values = read_rows(group["value"], layer, start, int(splits[rows[-1] + 1]))
            for row, place in zip(rows, places, strict=True):
                found[int(place)] = values[splits[row] - start : splits[row + 1] - start]
        parts = [found[place] for place in range(len(self._chosen))]
        ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return np.concatenate(parts), ends if self.position.ragged else None

    def torch(self) -> Any:
        """`numpy()` as a torch tensor."""
        return optional("torch", "torch").from_numpy(self.numpy())

    def xarray(self) -> Any:
        """`numpy()` as an xarray DataArray with named and labeled axes."""
        values = self.numpy()
        names = ["language", "item", *self.sites[0].axes]
        coordinates: dict[str, Any] = {"language": list(self.languages), "item": list(self.items)}
        if "summary" in names:
            coordinates["summary"] = list(self.store.summaries)
        if len(self.sites) > 1:
            names = ["layer", *names]
            coordinates["layer"] = list(self.layers)
        xarray = optional("xarray", "babelscope[xarray]")
        return xarray.DataArray(
            values, dims=names, coords=coordinates, name=self.sites[0].name, attrs={"position": str(self.position)}
        )

    def dataframe(self) -> pd.DataFrame:
        """`numpy()` as a table: one row per (layer, language, item), one column per flattened unit."""
        index = pd.MultiIndex.from_product(
            [self.layers, self.languages, self.items], names=["layer", "language", "item"]
        )
        return pd.DataFrame(self.numpy().reshape(len(index), -1), index=index)

    @property
    def _asked(self) -> tuple[int, ...]:
        return self.wanted if self.wanted is not None else tuple(range(len(self.store.items)))

    @cached_property
    def _have(self) -> dict[str, frozenset[int]]:
        """Captured items of each language among the blocks that hold items asked for."""
        blocks = {i // self.store.step for i in self._asked}
        return {
            g: frozenset(int(i) for b in self.store.blocks(g) if b in blocks for i in self.store.captured(g, b))
            for g in self.languages
        }

    @cached_property
    def _chosen(self) -> NDArray[np.int64]:
        common = frozenset.intersection(*self._have.values())
        return np.array([i for i in self._asked if i in common], np.int64)

    @cached_property
    def _stored_layers(self) -> list[int]:
        stored = self.store.layers(self.sites[0].name)
        return [stored.index(site.layer) for site in self.sites]

    def refuse_empty(self) -> None:
        """Raise BabelScopeError if no item is in every language."""
        if not self._chosen.size:
            raise BabelScopeError("no item was captured in all of these languages", "see `.dropped` for the reasons")

    def shards(self, language: str) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.int64]]]:
        """Each needed block once, with its rows that are selected and their places in the selection."""
        place = np.full(len(self.store.items), -1, np.int64)
        place[self._chosen] = np.arange(len(self._chosen))
        for block in np.unique(self._chosen // self.store.step).tolist():
            stored = self.store.captured(language, block)
            rows = np.flatnonzero(place[stored] >= 0)
            yield block, rows, place[stored[rows]]

    def _rows(self, language: str, dataset: str) -> list[NDArray[np.generic]]:
        """The values of the first site, or a coordinate, item by item."""
        found: dict[int, NDArray[np.generic]] = {}
        for block, rows, places in self.shards(language):
            with self.store.shard(language, block) as file:
                group = self._group(file)
                splits = read_checked(group["row_splits"])
                start, stop = int(splits[rows[0]]), int(splits[rows[-1] + 1])
                if dataset == "value":
                    values = _numeric(read_rows(group["value"], self._stored_layers[0], start, stop))
                else:
                    values = read_checked(group[dataset])[start:stop]
            for row, place in zip(rows, places, strict=True):
                found[int(place)] = values[splits[row] - start : splits[row + 1] - start]
        return [found[place] for place in range(len(self._chosen))]

    def _group(self, file: h5py.File) -> h5py.Group:
        return file[group_name(self.sites[0].name, self.position)]


def _numeric(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.astype(np.float32) if values.dtype == BFLOAT16 else values


def optional(module: str, package: str) -> Any:
    """Import a library by name, since stores are read on machines that have no torch."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise BabelScopeError(f"{module} is not installed", f"pip install '{package}'") from None
