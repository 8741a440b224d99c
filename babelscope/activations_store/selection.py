"""A lazy part of a store, aligned by item over languages and never filled."""

import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.activations_store.bfloat16 import BFLOAT16, read_row
from babelscope.activations_store.shard import group_name
from babelscope.errors import BabelScopeError
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
    wanted : tuple of str or None
        Items asked for; None for all.
    position : Position
    """

    store: "ActivationStore"
    sites: tuple[Site, ...]
    languages: tuple[str, ...]
    wanted: tuple[str, ...] | None
    position: Position

    @property
    def layers(self) -> tuple[int | None, ...]:
        """Layers in the order of `sites`."""
        return tuple(s.layer for s in self.sites)

    @cached_property
    def items(self) -> tuple[str, ...]:
        """Items that every language has, in the order asked for (row order by default)."""
        order = self.wanted if self.wanted is not None else self.store.items
        common = set.intersection(*(self._have(g) for g in self.languages))
        return tuple(i for i in order if i in common)

    @property
    def dropped(self) -> pd.DataFrame:
        """Items left out, with the language that lacks them and why: item, language, reason."""
        failed = self.store.failed.set_index(["item", "language"])["reason"].to_dict()
        rows = [
            (item, language, failed.get((item, language), "not captured yet"))
            for language in self.languages
            for item in (self.wanted if self.wanted is not None else self.store.items)
            if item not in self._have(language)
        ]
        return pd.DataFrame(rows, columns=["item", "language", "reason"])

    def numpy(self) -> NDArray[np.generic]:
        """The values.

        Returns
        -------
        ndarray
            (language, item, *unit) for one site; (layer, language, item, *unit) for several. float32 for
            stores in bfloat16, which NumPy lacks; the captured dtype otherwise.

        Raises
        ------
        BabelScopeError
            If no item is in every language, or the position is ragged.
        """
        if self.position.ragged:
            raise BabelScopeError(f"position {self.position} has many rows per item", "use .ragged()")
        if not self.items:
            raise BabelScopeError("no item was captured in all of these languages", "see `.dropped` for the reasons")
        layers = np.stack([np.stack([self._rows(s, g) for g in self.languages]) for s in self.sites])
        return layers[0] if len(self.sites) == 1 else layers

    def ragged(self) -> list[list[NDArray[np.generic]]]:
        """For position `all` and one site: per language, per item, (token, *unit)."""
        if not self.position.ragged or len(self.sites) != 1:
            raise BabelScopeError("ragged() reads one site at position all", "use .numpy()")
        return [self._tokens(self.sites[0], g) for g in self.languages]

    def torch(self) -> Any:
        """`numpy()` as a torch tensor."""
        # Imported by name: stores are read on machines that have no torch.
        return importlib.import_module("torch").from_numpy(np.ascontiguousarray(self.numpy()))

    def xarray(self) -> Any:
        """`numpy()` as an xarray DataArray with named and labeled axes."""
        xarray = importlib.import_module("xarray")
        values = self.numpy()
        names = ["language", "item", *self.sites[0].axes]
        coordinates: dict[str, Any] = {"language": list(self.languages), "item": list(self.items)}
        if len(self.sites) > 1:
            names = ["layer", *names]
            coordinates["layer"] = list(self.layers)
        return xarray.DataArray(values, dims=names, coords=coordinates, name=self.sites[0].name)

    def dataframe(self) -> pd.DataFrame:
        """`numpy()` as a table: one row per (layer, language, item), one column per flattened unit."""
        values = np.asarray(self.numpy())
        if len(self.sites) == 1:
            values = values[None]
        index = pd.MultiIndex.from_product(
            [self.layers, self.languages, self.items], names=["layer", "language", "item"]
        )
        return pd.DataFrame(values.reshape(len(index), -1), index=index)

    def _have(self, language: str) -> set[str]:
        known = self.__dict__.setdefault("_captured", {})
        if language not in known:
            names = self.store.items
            known[language] = {names[i] for file in self.store.shards(language) for i in file["rows/item"][()]}
        found: set[str] = known[language]
        return found

    def _rows(self, site: Site, language: str) -> NDArray[np.generic]:
        found, values = [], []
        for file in self.store.shards(language):
            found.append(file["rows/item"][()])
            values.append(_numeric(read_row(file[group_name(site.name, self.position)]["value"], self._layer(site))))
        rows = np.concatenate(values)
        place = {int(item): row for row, item in enumerate(np.concatenate(found))}
        number = {name: i for i, name in enumerate(self.store.items)}
        return rows[[place[number[item]] for item in self.items]]

    def _tokens(self, site: Site, language: str) -> list[NDArray[np.generic]]:
        parts: dict[str, NDArray[np.generic]] = {}
        for file in self.store.shards(language):
            group = file[group_name(site.name, self.position)]
            values, splits = _numeric(read_row(group["value"], self._layer(site))), group["row_splits"][()]
            for row, item in enumerate(file["rows/item"][()]):
                parts[self.store.items[item]] = values[splits[row] : splits[row + 1]]
        return [parts[item] for item in self.items]

    def _layer(self, site: Site) -> int:
        return self.store.layers(site.name).index(site.layer)


def _numeric(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.astype(np.float32) if values.dtype == BFLOAT16 else values
