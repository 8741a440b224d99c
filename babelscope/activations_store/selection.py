"""A lazy part of a store, aligned by item over languages and never filled."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.activations_store.handles import holding
from babelscope.activations_store.hdf5 import read_checked
from babelscope.activations_store.numbers import number_dtype, read_numbers, read_places, read_stored, will_read
from babelscope.activations_store.shapes import unit_shape
from babelscope.activations_store.shard import group_name
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Position, Site
from babelscope.schema.glance import Glance, Sample, counted, listed, ranged

# Which items a selection of several languages holds.
Align = Literal["inner", "outer"]
# Shards that the disk reads while those before them are opened and converted.
_AHEAD = 8

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
    align : {"inner", "outer"}
    """

    store: "ActivationStore" = field(repr=False)
    sites: tuple[Site, ...]
    languages: tuple[str, ...]
    wanted: tuple[int, ...] | None
    position: Position
    align: Align = "inner"

    def __repr__(self) -> str:
        return self._glance().text()

    def _repr_html_(self) -> str:
        return self._glance().html()

    @property
    def layers(self) -> tuple[int | None, ...]:
        """Layers in the order of `sites`."""
        return tuple(s.layer for s in self.sites)

    @cached_property
    def items(self) -> tuple[str, ...]:
        """Items that every language has (any language, if aligned outer), in the order asked for or in row order."""
        return tuple(self.store.items[i] for i in self._chosen)

    @property
    def present(self) -> NDArray[np.bool_]:
        """(language, item): whether a language has an item of `items`. All True where aligned inner."""
        return np.array([[i in self._have[language] for i in self._chosen] for language in self.languages], bool)

    @property
    def dropped(self) -> pd.DataFrame:
        """Items that a language lacks, and why: item, language, reason. Aligned inner, they are left out of all."""
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
            stores in bfloat16, which NumPy lacks, and in int8; the stored dtype otherwise. Aligned outer, a masked
            array: what a language lacks is masked, and NaN below the mask.

        Raises
        ------
        BabelScopeError
            If no item is in every language, the position is ragged, or a shard is damaged.
        """
        if self.position.ragged:
            raise BabelScopeError(f"position {self.position} has many rows per item", "use .ragged()")
        with holding():
            return self._numpy()

    def _numpy(self) -> NDArray[np.generic]:
        ahead = self._announced()
        list(islice(ahead, _AHEAD))
        self.refuse_empty()
        out: NDArray[np.generic] | None = None
        for a, language in enumerate(self.languages):
            for block, rows, places in self.shards(language):
                next(ahead, None)
                with self.store.shard(language, block) as file:
                    group = self._group(file)
                    if out is None:
                        out = self._empty(group)
                    for s, layer in enumerate(self._stored_layers):
                        read_places(group, layer, rows, out[s, a], places)
        assert out is not None  # refuse_empty left at least one item
        if self.align == "outer":
            out = self._masked(out)
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
            If several layers are selected, the position has one row per item, no item is in every language, or the
            items are aligned outer.
        """
        self._refuse_outer("ragged()")
        if not self.position.ragged or len(self.sites) != 1:
            raise BabelScopeError("ragged() reads one site at position all or words", "use .numpy()")
        with holding():
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
            If this position keeps nothing of that name, no item is in every language, or the items are aligned
            outer.
        """
        self._refuse_outer("coordinate()")
        if name not in self.position.coordinates:
            raise unknown_name(f"coordinate of position {self.position}", name, self.position.coordinates)
        self.refuse_empty()
        return [self._rows(g, name) for g in self.languages]

    def stored(self, site: Site, language: str) -> tuple[NDArray[np.generic], NDArray[np.int64] | None]:
        """Read one site in one language, at any position, in the stored dtype; int8 as the float32 that it stands for.

        Returns
        -------
        values : ndarray
            (item, *unit), or (row, *unit) at ragged positions. bfloat16 is `ml_dtypes.bfloat16`.
        row_splits : ndarray of int64 or None
            At ragged positions (item + 1,): rows of item i are `row_splits[i]:row_splits[i + 1]`.

        Raises
        ------
        BabelScopeError
            If no item is in every language, a shard is damaged, or the items are aligned outer.
        """
        self._refuse_outer("stored()")
        self.refuse_empty()
        layer = self.store.layers(site.name).index(site.layer)
        found: dict[int, NDArray[np.generic]] = {}
        for block, rows, places in self.shards(language):
            with self.store.shard(language, block) as file:
                group = self._group(file)
                splits = read_checked(group["row_splits"]) if self.position.ragged else np.arange(rows[-1] + 2)
                start = int(splits[rows[0]])
                values = read_stored(group, layer, start, int(splits[rows[-1] + 1]))
            for row, place in zip(rows, places, strict=True):
                found[int(place)] = values[splits[row] - start : splits[row + 1] - start]
        parts = [found[place] for place in range(len(self._chosen))]
        ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return np.concatenate(parts), ends if self.position.ragged else None

    def torch(self) -> Any:
        """`numpy()` as a torch tensor. BabelScopeError if aligned outer, since torch has no mask."""
        self._refuse_outer("torch()")
        return optional("torch", "torch").from_numpy(self.numpy())

    def xarray(self) -> Any:
        """`numpy()` as an xarray DataArray with named and labeled axes.

        Aligned outer, `present` (language, item) is a coordinate, and what is missing is NaN.
        """
        values = np.asarray(self.numpy())
        names = ["language", "item", *self.sites[0].axes]
        coordinates: dict[str, Any] = {"language": list(self.languages), "item": list(self.items)}
        if "summary" in names:
            coordinates["summary"] = list(self.store.summaries)
        if len(self.sites) > 1:
            names = ["layer", *names]
            coordinates["layer"] = list(self.layers)
        if self.align == "outer":
            coordinates["present"] = (("language", "item"), self.present)
        xarray = optional("xarray", "babelscope[xarray]")
        return xarray.DataArray(
            values, dims=names, coords=coordinates, name=self.sites[0].name, attrs={"position": str(self.position)}
        )

    def dataframe(self) -> pd.DataFrame:
        """`numpy()` as a table: one row per (layer, language, item) that is there, one column per flattened unit."""
        index = pd.MultiIndex.from_product(
            [self.layers, self.languages, self.items], names=["layer", "language", "item"]
        )
        table = pd.DataFrame(np.asarray(self.numpy()).reshape(len(index), -1), index=index)
        return table[np.tile(self.present.ravel(), len(self.layers))]

    def _glance(self) -> Glance:
        """Axes and extents, from the headers of the shards: no value is read."""
        name = self.sites[0].name
        try:
            unit = unit_shape(self.store, name, self.position)
            items, dropped, lost = self.items, len(self.dropped), ""
        except BabelScopeError as error:  # a repr must not raise
            unit, items, dropped, lost = None, (), 0, error.problem.replace(f"{self.store.path}/", "")
        one = "" if self.layers == (None,) else f"@{ranged(self.layers)}"
        axes = [("layer", f"{len(self.sites)}", ranged(self.layers))] if len(self.sites) > 1 else []
        axes += [("language", f"{len(self.languages)}", listed(self.languages))]
        axes += [("item", f"{len(items)}", listed(items, 4))]
        axes += [("token", "of each item", "")] if self.position.ragged else []
        axes += [(axis, f"{n}", "") for axis, n in zip(self.sites[0].axes, unit or (), strict=bool(unit))]
        facts = {
            "at": f"{self.position}, {self.store.plan.dtype}, aligned {self.align}",
            "lacks": f"{counted(dropped, 'prompt')} (see .dropped)" if dropped else "",
            "damaged": lost,
            "read by": ".ragged()" if self.position.ragged else ".numpy(), .torch(), .xarray(), .dataframe()",
        }
        sample = Sample(("axis", "extent", "names"), tuple(axes), len(axes))
        return Glance(f"Selection {name}{one} of {self.store.path}", facts, (sample,))

    @property
    def _asked(self) -> tuple[int, ...]:
        return self.wanted if self.wanted is not None else tuple(range(len(self.store.items)))

    @cached_property
    def _have(self) -> dict[str, frozenset[int]]:
        """Captured items of each language among the blocks that hold items asked for."""
        return {
            g: frozenset(chain.from_iterable(self.store.captured(g, b).tolist() for b in blocks))
            for g, blocks in self._blocks.items()
        }

    @cached_property
    def _blocks(self) -> dict[str, list[int]]:
        """Blocks of each language that hold items asked for. The disk begins with what is read of them first."""
        wanted = {i // self.store.step for i in self._asked}
        found = {g: [b for b in self.store.blocks(g) if b in wanted] for g in self.languages}
        self.store.will_read((g, b) for g, blocks in found.items() for b in blocks)
        return found

    def _announced(self) -> Iterator[None]:
        """At each step, let the disk begin with the rows asked for of one more shard.

        In the first layer alone: further ones are asked for in time as they are read, and would fill the memory.
        """
        asked = np.zeros(len(self.store.items), bool)
        asked[list(self._asked)] = True
        for language, blocks in self._blocks.items():
            for block in blocks:
                rows = np.flatnonzero(asked[self.store.captured(language, block)])
                if rows.size:
                    with self.store.shard(language, block) as file:
                        will_read(self._group(file), self._stored_layers[0], int(rows[0]), int(rows[-1]) + 1)
                    yield

    @cached_property
    def _chosen(self) -> NDArray[np.int64]:
        joined = frozenset.intersection if self.align == "inner" else frozenset.union
        common = joined(*self._have.values())
        return np.array([i for i in self._asked if i in common], np.int64)

    @cached_property
    def _stored_layers(self) -> list[int]:
        stored = self.store.layers(self.sites[0].name)
        return [stored.index(site.layer) for site in self.sites]

    def _empty(self, group: h5py.Group) -> NDArray[np.generic]:
        """(layer, language, item, *unit) to be filled; NaN where an outer alignment can leave it so."""
        unit = group["value"].shape[2:]
        shape = (len(self.sites), len(self.languages), len(self._chosen), *unit)
        out: NDArray[np.generic] = np.empty(shape, number_dtype(group))
        if self.align == "outer":
            out.fill(np.nan)
        return out

    def _masked(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Mask (layer, language, item, *unit) where a language lacks an item."""
        absent = ~self.present.reshape(1, *self.present.shape, *[1] * (values.ndim - 3))
        masked: NDArray[np.generic] = np.ma.MaskedArray(values, np.broadcast_to(absent, values.shape))
        return masked

    def _refuse_outer(self, method: str) -> None:
        if self.align == "outer":
            raise BabelScopeError(f"{method} cannot show that an item is missing", 'use .numpy(), or align="inner"')

    def refuse_empty(self) -> None:
        """Raise BabelScopeError if no item is in every language (in any, if aligned outer)."""
        if not self._chosen.size:
            raise BabelScopeError("no item was captured in all of these languages", "see `.dropped` for the reasons")

    def shards(self, language: str) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.int64]]]:
        """Each needed block once, with its rows that are selected and their places in the selection."""
        place = np.full(len(self.store.items), -1, np.int64)
        place[self._chosen] = np.arange(len(self._chosen))
        there = self._chosen if self.align == "inner" else self._chosen[self.present[self.languages.index(language)]]
        for block in np.unique(there // self.store.step).tolist():
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
                    values = read_numbers(group, self._stored_layers[0], start, stop)
                else:
                    values = read_checked(group[dataset])[start:stop]
            for row, place in zip(rows, places, strict=True):
                found[int(place)] = values[splits[row] - start : splits[row + 1] - start]
        return [found[place] for place in range(len(self._chosen))]

    def _group(self, file: h5py.File) -> h5py.Group:
        return file[group_name(self.sites[0].name, self.position)]


def optional(module: str, package: str) -> Any:
    """Import a library by name, since stores are read on machines that have no torch."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise BabelScopeError(f"{module} is not installed", f"pip install '{package}'") from None
