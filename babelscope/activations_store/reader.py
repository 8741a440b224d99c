"""A capture on disk, read lazily: no model, no torch."""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import pandas as pd

from babelscope.activations_store.selection import Selection
from babelscope.activations_store.shard import opened, rows_table, shard_path
from babelscope.activations_store.writer import read_manifest
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import CapturePlan, Position, Prompt, PromptSet, Site, expand_sites


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
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.plan = CapturePlan.from_json(manifest["plan"])
        self.fingerprint: str = manifest["plan_sha256"]
        self.provenance: Mapping[str, Any] = manifest["provenance"]
        self.has_texts: bool = manifest["texts"]
        self._name: str = manifest["prompts"]

    @classmethod
    def open(cls, path: str | Path) -> "ActivationStore":
        """Open a store for reading; BabelScopeError if it is none, or of a newer schema, or edited."""
        return cls(Path(path), read_manifest(Path(path)))

    def __enter__(self) -> "ActivationStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Nothing is held open between reads."""

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

    def layers(self, site: str) -> tuple[int | None, ...]:
        """Stored layers of a site named without its layer."""
        known = self.plan.site_layers()
        if site not in known:
            raise unknown_name("site in this store", site, known, f"cli.py inspect {self.path}")
        return known[site]

    @property
    def progress(self) -> tuple[int, int]:
        """Committed and planned shards."""
        planned = [(g, b) for g in self.languages for b in range(self.plan.n_blocks)]
        return sum(shard_path(self.path, self.plan, g, b).exists() for g, b in planned), len(planned)

    def shards(self, language: str) -> Iterator[h5py.File]:
        """Committed shards of a language in item order, each open while it is the current one."""
        for block in range(self.plan.n_blocks):
            path = shard_path(self.path, self.plan, language, block)
            if path.exists():
                with opened(path, self.plan) as file:
                    yield file

    def select(
        self,
        sites: str | Sequence[str],
        *,
        languages: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
        position: str | None = None,
    ) -> Selection:
        """A lazy part of the store: items that every chosen language has, in row order.

        Parameters
        ----------
        sites : str or sequence of str
            As `mlp.act@3`, `resid.post@0:4`, or without layers for all stored ones. One kind at a time.
        languages, items : sequence of str, optional
        position : str, optional
            Needed only where the store holds several.

        Raises
        ------
        BabelScopeError
            For a site, layer, language, item or position that the store does not hold.
        """
        wanted = self._sites([sites] if isinstance(sites, str) else list(sites))
        chosen = tuple(dict.fromkeys(languages)) if languages is not None else self.languages
        for language in chosen:
            if language not in self.languages:
                raise unknown_name("language in this store", language, self.languages)
        known = set(self.items)
        for item in items or ():
            if item not in known:
                raise unknown_name("item in this store", item, self.items[:2000])
        return Selection(self, wanted, chosen, tuple(items) if items is not None else None, self._position(position))

    def _sites(self, expressions: Sequence[str]) -> tuple[Site, ...]:
        found: list[Site] = []
        for text in expressions:
            name = text.split("@")[0]
            have = self.layers(name)
            if "@" not in text or None in have:
                found += [s for s in self.plan.sites if s.name == name]
                continue
            for site in expand_sites([text], self.plan.model.n_layers):
                if site.layer not in have:
                    raise BabelScopeError(
                        f"{self.path} has no layer {site.layer} of {name}", f"stored layers: {', '.join(map(str, have))}"
                    )
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
        """The captured prompts; BabelScopeError if texts were left out."""
        if not self.has_texts:
            raise BabelScopeError(f"{self.path} was captured without prompt texts", "capture with --texts")
        return PromptSet(self._name, tuple(Prompt.from_json(r) for r in self._records()))

    @cached_property
    def covariates(self) -> pd.DataFrame:
        """Covariates by item (index `item`), with `gold`: what is equal in all languages of an item."""
        rows: dict[str, dict[str, Any]] = {}
        for record in self._records():
            rows.setdefault(record["item"], {**record["covariates"], "gold": record["gold"]})
        table = pd.DataFrame.from_dict(rows, orient="index")
        table.index.name = "item"
        return table

    @cached_property
    def answers(self) -> pd.DataFrame:
        """One row per captured prompt: item, language, n_tokens, last_token, and the model's answer.

        choice, correct and score_0... are present when the capture kept answers; NaN where an item has no
        options or no gold.
        """
        tables = [self._answers_of(file, g) for g in self.languages for file in self.shards(g)]
        if not tables:
            return pd.DataFrame(columns=["item", "language", "n_tokens", "last_token", "correct"])
        return pd.concat(tables, ignore_index=True)

    def _answers_of(self, file: h5py.File, language: str) -> pd.DataFrame:
        columns = rows_table(file)
        table = pd.DataFrame({"item": np.array(self.items, object)[columns["item"]], "language": language})
        table["n_tokens"] = columns["n_tokens"]
        table["last_token"] = [bytes(t).decode("utf-8", "replace") for t in columns["last_token"].tolist()]
        if "choice" in columns:
            table["choice"], table["correct"] = columns["choice"], columns["correct"]
            for option in range(columns["scores"].shape[1]):
                table[f"score_{option}"] = columns["scores"][:, option]
        return table

    @property
    def failed(self) -> pd.DataFrame:
        """Items that could not be captured: item, language, reason."""
        rows = [
            (self.items[item], g, bytes(reason).decode("utf-8", "replace"))
            for g in self.languages
            for file in self.shards(g)
            for item, reason in zip(file["failed/item"][()], file["failed/reason"][()].tolist(), strict=True)
        ]
        return pd.DataFrame(rows, columns=["item", "language", "reason"])

    def _records(self) -> Iterator[dict[str, Any]]:
        with h5py.File(self.path / "items.h5", "r", locking=False) as file:
            for language in self.languages:
                for text in file[f"l-{language}/record"].asstr()[()]:
                    yield json.loads(text)

    def _facts(self) -> dict[str, str]:
        done, planned = self.progress
        size = sum(p.stat().st_size for p in self.path.rglob("*.h5"))
        sites = ", ".join(f"{n} x {len(ls)}" for n, ls in self.plan.site_layers().items())
        return {
            "store": str(self.path),
            "model": f"{self.plan.model.source} ({self.plan.model.architecture}, {self.plan.model.n_layers} layers)",
            "prompts": f"{self._name}: {len(self.items)} items x {len(self.languages)} languages "
            f"({', '.join(self.languages)})",
            "sites": f"{sites} at {', '.join(map(str, self.plan.positions))}, {self.plan.dtype}",
            "size": f"{size / 1e6:.1f} MB, {done} of {planned} shards, {len(self.failed)} failed prompts",
            "plan": self.fingerprint[:16],
        }

    def __repr__(self) -> str:
        return "\n".join(f"{name:<8} {text}" for name, text in self._facts().items())

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{n}</th><td>{html.escape(t)}</td></tr>" for n, t in self._facts().items())
        return f"<table>{rows}</table>"
