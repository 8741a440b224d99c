"""A capture on disk, read lazily: no model, no torch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope import layout
from babelscope.activations_store.answers import (
    answer_table,
    covariate_table,
    failed_table,
    marked_table,
    spelling_table,
)
from babelscope.activations_store.description import about, told
from babelscope.activations_store.disk import will_read
from babelscope.activations_store.folder import Folder
from babelscope.activations_store.hdf5 import read_checked
from babelscope.activations_store.items import prompts_in
from babelscope.activations_store.magnitudes import row_extremes, value_extremes
from babelscope.activations_store.manifest import Manifest, read_manifest
from babelscope.activations_store.packed import Packed
from babelscope.activations_store.selection import Align, Selection
from babelscope.activations_store.shapes import shape_sample
from babelscope.activations_store.verification import Verification, verify
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import CapturePlan, Position, Prompt, PromptSet, Site, expand_sites
from babelscope.schema.glance import Glance
from babelscope.schema.prompts import prompt_sample
from babelscope.schema.site import split_site


class ActivationStore:
    """A store, whole or still being written. Open with `ActivationStore.open(path)`.

    Attributes
    ----------
    path : Path
    plan : CapturePlan
    fingerprint : str
        Hash of the plan: the identity of every number in the store.
    provenance : mapping
        Command, versions, device, self-test errors.
    has_texts : bool
        Whether prompt texts were kept.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.plan: CapturePlan = manifest.plan
        self.fingerprint: str = manifest.plan.fingerprint
        self.provenance: Mapping[str, Any] = manifest.provenance
        self.has_texts: bool = manifest.texts
        self._manifest = manifest
        self._files = Packed(path, self.plan) if path.is_file() else Folder(path, self.plan)
        self._captured: dict[tuple[str, int], NDArray[np.int64]] = {}

    @classmethod
    def open(cls, path: str | Path) -> "ActivationStore":
        """Open a store, a folder or a packed file; BabelScopeError if it is none, or of a newer schema, or edited."""
        return cls(Path(path), read_manifest(Path(path)))

    def __enter__(self) -> "ActivationStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Do nothing: no file is held open between reads."""

    def verify(self, *, full: bool = False) -> Verification:
        """Check every file of the store: `print(store.verify(full=True))`. True where nothing is wrong.

        Parameters
        ----------
        full : bool
            Read every byte, rather than names, sizes, shapes and types alone.
        """
        return verify(self.path, full=full)

    @property
    def prompts_name(self) -> str:
        """Name of the captured prompts."""
        return self._manifest.prompts_name

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages in row order."""
        return self.plan.languages

    @property
    def items(self) -> tuple[str, ...]:
        """Items in row order."""
        return self.plan.items

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the stored sites, without layers."""
        return tuple(self.plan.site_layers())

    @property
    def summaries(self) -> tuple[str, ...]:
        """Names along the axis `summary` of attention mass: `entropy_nats`, ..., `segment:question`."""
        return self.plan.summaries

    def layers(self, site_name: str) -> tuple[int | None, ...]:
        """Return the stored layers of a site named without its layer."""
        known = self.plan.site_layers()
        if site_name not in known:
            raise unknown_name("site in this store", site_name, known, f"cli.py inspect {self.path}")
        return known[site_name]

    @property
    def progress(self) -> tuple[int, int]:
        """Committed and planned shards."""
        return sum(len(self.committed(g)) for g in self.languages), len(self.languages) * self.plan.n_blocks

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self._files.size

    @property
    def step(self) -> int:
        """Items that two parts of a language are apart: those of a block, or all of them in a packed file."""
        return self._files.step

    def committed(self, language: str) -> list[int]:
        """Return the indices of the committed blocks of a language."""
        return self._files.committed(language)

    def blocks(self, language: str) -> list[int]:
        """Return the numbers of what `shard` opens: committed blocks, or 0 for a language of a packed file."""
        return self._files.parts(language)

    @contextmanager
    def shard(self, language: str, block: int) -> Iterator[h5py.Group]:
        """Open a committed shard; what h5py raises inside the `with` becomes an error that names the file."""
        with self._files.part(language, block) as group:
            yield group

    @contextmanager
    def open_items(self) -> Iterator[h5py.Group]:
        """Open what is known about items and prompts; errors as in `shard`."""
        with self._files.items() as group:
            yield group

    def captured(self, language: str, block: int) -> NDArray[np.int64]:
        """Return which items the rows of a committed shard are, as indices into `items`."""
        if (language, block) not in self._captured:  # a committed shard never changes
            with self.shard(language, block) as file:
                found = read_checked(file["rows/item"]).astype(np.int64)
                start = block * self.step
                stop = min(start + self.step, len(self.items))
                if found.size and not (start <= found.min() and found.max() < stop):
                    raise ValueError("its items are not those of its block")
            self._captured[language, block] = found
        return self._captured[language, block]

    def will_read(self, shards: Iterable[tuple[str, int]]) -> None:
        """Let the disk begin with shards, (language, block), whose rows are not known yet."""
        will_read(self._files.file(g, b) for g, b in shards if (g, b) not in self._captured)

    def number(self, item: str) -> int:
        """Return the place of an item in `items`; BabelScopeError if it has none."""
        if item not in self._numbers:
            raise unknown_name("item in this store", str(item), self.items)
        return self._numbers[item]

    def select(
        self,
        sites: str | Sequence[str],
        *,
        languages: str | Sequence[str] | None = None,
        items: str | Sequence[str] | None = None,
        position: str | None = None,
        where: Mapping[str, Any] | None = None,
        align: Align = "inner",
    ) -> Selection:
        """Select a part of the store, lazily. Nothing is read from the shards before a method asks for values.

        Parameters
        ----------
        sites : str or sequence of str
            As `mlp.act@3`, `resid.post@0:4`, or without layers for all stored ones. One kind at a time.
        languages, items : str or sequence of str, optional
            In the order wanted; all of them, in row order, by default.
        position : str, optional
            Needed only where the store holds several.
        where : mapping, optional
            Column of `covariates` -> the value, or a list of values, that items must have: `{"rule": "addition"}`.
        align : {"inner", "outer"}
            Items that every chosen language has, or those that any has; what is missing is then masked.

        Raises
        ------
        BabelScopeError
            For a site, layer, language, item, position or covariate that the store does not hold, and where no item
            has the values asked for.
        """
        if align not in ("inner", "outer"):
            raise unknown_name("way to align", str(align), ("inner", "outer"))
        wanted = self._sites(_listed(sites))
        chosen = self.languages if languages is None else _listed(languages)
        for language in chosen:
            if language not in self.languages:
                raise unknown_name("language in this store", str(language), self.languages)
        if not chosen:
            raise BabelScopeError("the selection names no language", f"stored: {', '.join(self.languages)}")
        numbers = None if items is None else tuple(self.number(item) for item in _listed(items))
        if where is not None:
            numbers = self._having(where, numbers)
        return Selection(self, wanted, chosen, numbers, self._position(position), align)

    def _having(self, where: Mapping[str, Any], numbers: tuple[int, ...] | None) -> tuple[int, ...]:
        """Those of the numbered items (all of them by default) that have the values asked for."""
        has = np.ones(len(self.items), bool)
        for name, values in where.items():
            if name not in self.covariates:
                raise unknown_name("covariate in this store", str(name), map(str, self.covariates))
            allowed = values if isinstance(values, list | tuple | set | frozenset) else [values]
            has &= self.covariates[name].isin(list(allowed)).to_numpy(bool)
        found = tuple(i for i in (range(len(self.items)) if numbers is None else numbers) if has[i])
        if not found:
            raise BabelScopeError(f"no item has {dict(where)}", "see `.covariates` for the values there are")
        return found

    def _sites(self, expressions: Sequence[str]) -> tuple[Site, ...]:
        found: list[Site] = []
        for text in expressions:
            name, at, _ = text.strip().partition("@")
            stored = self.layers(name)
            if not at:
                found += [s for s in self.plan.sites if s.name == name]
                continue
            split_site(text)
            for site in expand_sites([text], self.plan.model.depths):
                if site.layer not in stored:
                    raise unknown_name(f"layer of {name} in this store", str(site.layer), map(str, stored))
                found.append(site)
        if len({s.name for s in found}) != 1:
            raise BabelScopeError("a selection reads one kind of site at a time", "select each site by itself")
        return tuple(dict.fromkeys(found))

    def _position(self, text: str | None) -> Position:
        stored = self.plan.positions
        if text is None:
            if len(stored) > 1:
                names = ", ".join(map(str, stored))
                raise BabelScopeError(f"{self.path} holds several positions", f"name one of: {names}")
            return stored[0]
        position = Position.parse(text)
        if position not in stored:
            raise unknown_name("position in this store", text, map(str, stored))
        return position

    @cached_property
    def prompts(self) -> PromptSet:
        """The captured prompts.

        Raises
        ------
        BabelScopeError
            If texts were left out, or `items.h5` does not hold the prompts that the plan names.
        """
        if not self.has_texts:
            raise BabelScopeError(f"{self.path} was captured without prompt texts", "capture with --texts")
        found = PromptSet(self._manifest.prompts_name, self._prompts, self._manifest.prompts_source)
        if found.digest() != self.plan.prompts_sha256:
            raise BabelScopeError(f"{self.path}/items.h5 does not hold the prompts of this capture", "restore the file")
        return found

    @cached_property
    def covariates(self) -> pd.DataFrame:
        """Covariates by item (index `item`, in row order), with `gold`; from the first language that has the item."""
        return covariate_table(self.items, self._prompts)

    @property
    def answers(self) -> pd.DataFrame:
        """One row per captured prompt: item, language, n_tokens, last_token, gold, and the model's answer.

        choice is the index of the option, NA without options; correct is 1.0, 0.0 or NaN without gold; score_0...
        are log-probabilities of the labels, NaN where an item has fewer options; undefined says why an item that
        has options has no scores ("" otherwise). Where the plan asked for them, text_score_0... are log-probabilities
        of the option texts, text_tokens_0... the number of their tokens, and continuation is what the model wrote.
        """
        return answer_table(self, self._prompts)

    @property
    def spellings(self) -> pd.DataFrame:
        """One row per captured prompt and way to spell its labels: item, language, spelling (`SPELLINGS`).

        score_0... are log-probabilities of the labels so spelled, token_0... the tokens scored (NA: none); undefined
        says why an item's options cannot be scored so ("" otherwise), and its scores are NaN. Empty for a store that
        was begun before spellings were kept.
        """
        return spelling_table(self)

    @property
    def extremes(self) -> pd.DataFrame:
        """The largest |value| of the rows of every site and layer, what is not finite and clipped (`row_extremes`)."""
        return row_extremes(self)

    def magnitudes(self, progress: Callable[[int, int, str], None] | None = None) -> pd.DataFrame:
        """Read every value, for the medians of |value|, and the units that tower above them (`value_extremes`)."""
        return value_extremes(self, progress)

    @property
    def records(self) -> tuple[Prompt, ...]:
        """The captured prompts as far as they are kept: texts and options are empty in a store without texts."""
        return self._prompts

    @property
    def failed(self) -> pd.DataFrame:
        """Items that could not be captured: item, language, reason."""
        return failed_table(self)

    @property
    def marked(self) -> pd.DataFrame:
        """Items with a value that was clipped or was not finite in the model: item, language, status.

        Attention scores and summaries do not count: what does not apply is NaN in them.
        """
        return marked_table(self)

    @cached_property
    def _prompts(self) -> tuple[Prompt, ...]:
        with self.open_items() as group:
            return prompts_in(group)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {item: i for i, item in enumerate(self.items)}

    def to_json(self) -> dict[str, Any]:
        """What the store is, JSON-ready (`description.about`)."""
        return about(self)

    def __str__(self) -> str:
        return layout.facts(told(self))

    def __repr__(self) -> str:
        return Glance(f"ActivationStore {self.path}", self._facts_beside_the_path()).text()

    def _repr_html_(self) -> str:
        try:
            samples = (shape_sample(self), *((prompt_sample(self._prompts),) if self.has_texts else ()))
        except BabelScopeError:  # a repr must not raise
            samples = ()
        return Glance(f"ActivationStore {self.path}", self._facts_beside_the_path(), samples).html()

    def _facts_beside_the_path(self) -> dict[str, str]:
        return {name: text for name, text in told(self).items() if name != "store"}


def _listed(names: str | Sequence[str]) -> tuple[str, ...]:
    """Give a name or several as a tuple, each once."""
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
