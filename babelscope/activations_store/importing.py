"""Importing what other tools have captured: a store like any other, which says that no model was run here."""

import hashlib
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from babelscope import layout
from babelscope.activations_store.encoding import DTYPES
from babelscope.activations_store.manifest import check_plan
from babelscope.activations_store.packing import Progress
from babelscope.activations_store.writer import StoreWriter
from babelscope.errors import BabelScopeError
from babelscope.schema import SITE_KINDS, Block, CapturePlan, ModelRef, Position, Prompt, PromptSet, Rows, Site
from babelscope.schema.site import split_site

BLOCK_BYTES = 96_000_000
FEWEST, MOST = 16, 4096
HASHED = 2**23
# Integers of another tool come without what they are multiples of.
IMPORTED = tuple(name for name in DTYPES if name != "int8")

# (site, language, items of the source that have a row there) -> the rows of each of them, one behind the other.
Read: TypeAlias = Callable[[Site, str, Sequence[str]], NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Source:
    """What a reader of another tool's files has found.

    Parameters
    ----------
    about : mapping
        The JSON that came with it: model, architecture, n_layers, position, texts, covariates.
    file : Path
        Where that JSON is, for messages.
    items : mapping
        Language -> its items, in row order.
    sites : tuple of Site
    unit : mapping
        Name of a site -> shape of one row.
    dtype : str
    read : callable
        Rows of a site.
    lengths : mapping
        At ragged positions, language -> item -> how many rows it has.
    beside : callable
        At ragged positions, (name of a coordinate, site, language, items) -> one value per row.
    files : tuple of Path
        All that was read.
    left_out : tuple of str
        Names in the source that are no site.
    """

    about: Mapping[str, Any]
    file: Path
    items: Mapping[str, Sequence[str]]
    sites: tuple[Site, ...]
    unit: Mapping[str, tuple[int, ...]]
    dtype: str
    read: Read
    files: tuple[Path, ...]
    lengths: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    beside: Callable[[str, Site, str, Sequence[str]], NDArray[np.generic]] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def position(self) -> Position:
        """The position of every row."""
        return position_of(self.about, self.file)

    def __str__(self) -> str:
        names = dict.fromkeys(site.name for site in self.sites)
        return layout.facts({
            "sites": f"{len(self.sites)} ({', '.join(names)}) at {self.position}, {self.dtype}",
            "items": ", ".join(f"{len(items)} in {language}" for language, items in self.items.items()),
            **({"left out": ", ".join(self.left_out)} if self.left_out else {}),
        })  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        items = {language: list(items) for language, items in self.items.items()}
        return {"sites": list(map(str, self.sites)), "position": str(self.position), "dtype": self.dtype,
                "items": items, "left_out": list(self.left_out)}  # fmt: skip


def check_source(source: Source) -> None:
    """Refuse, before anything is written, what `write_store` would refuse; values are not read.

    Raises
    ------
    BabelScopeError
        If the source contradicts itself.
    """
    check_plan(_plan(source, _prompts(source)[0], "", ""))


def write_store(source: Source, target: Path, kind: str, origin: Path, *, progress: Progress | None = None) -> None:
    """Write a new store from a source.

    Parameters
    ----------
    kind : str
        Name of the importer.
    origin : Path
        What the user named.

    Raises
    ------
    BabelScopeError
        If the source contradicts itself, or the disk is full.
    """
    prompts, texts = _prompts(source)
    sha256 = _digest(source.files)
    plan = _plan(source, prompts, kind, sha256)
    about = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": platform.node(),
        "versions": {package: version(package) for package in ("babelscope", "h5py", "numpy")},
        "derived_from": {
            "kind": kind, "path": str(origin.absolute()), "sha256": sha256, "files": len(source.files),
            "model_was_run_here": False, "texts_known": texts, "left_out": list(source.left_out),
        },
    }  # fmt: skip
    with StoreWriter.create(target, plan, prompts, about, texts=texts) as writer:
        for done, (language, index) in enumerate(plan.blocks, start=1):
            writer.put(_block(source, plan, language, index))
            if progress:
                progress(done, len(plan.blocks), f"import {language}")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; BabelScopeError if it is none."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BabelScopeError(f"{path}: {error.strerror}", "write it as docs/exchange.md says") from None
    except (ValueError, RecursionError) as error:
        raise BabelScopeError(f"{path} is not JSON: {error}", "correct it; docs/exchange.md has an example") from None
    if not isinstance(record, dict):
        raise BabelScopeError(f"{path} is not a JSON object", "write it as docs/exchange.md says")
    return record


def field_of(record: Mapping[str, Any], name: str, kind: type, file: Path, default: Any = ...) -> Any:
    """A field of a record of a file; BabelScopeError naming both if it is missing or of another type."""
    value = record.get(name, default)
    if value is ... or (value is not default and (not isinstance(value, kind) or isinstance(value, bool))):
        found = "missing" if value is ... else f"{value!r:.60}"
        expected = {"str": "text", "int": "whole number", "dict": "object"}.get(kind.__name__, kind.__name__)
        raise BabelScopeError(
            f"{file}: field {name!r} is {found}, expected {expected}", "docs/exchange.md has a complete example"
        )
    return value


def texts_of(record: Mapping[str, Any], name: str, file: Path, length: int | None = None) -> list[str]:
    """A field that is a list of texts, of a given length."""
    values = field_of(record, name, list, file)
    if not all(isinstance(value, str) for value in values):
        raise BabelScopeError(f"{file}: field {name!r} holds something that is no text", "quote every entry")
    if length is not None and len(values) != length:
        raise BabelScopeError(
            f"{file}: field {name!r} has {len(values)} entries, expected {length}", "one entry per row"
        )
    return list(values)


def position_of(record: Mapping[str, Any], file: Path) -> Position:
    """The position that a record names, `last` by default."""
    return Position.parse(field_of(record, "position", str, file, "last"))


def check_site(site: Site, file: Path) -> None:
    """Refuse a kind of site whose extents only a capture knows."""
    if {"key", "summary"} & set(SITE_KINDS[site.kind].axes):
        raise BabelScopeError(f"{file}: site {site} cannot be imported", "leave it out, or capture it here")


def one_dtype(names: Mapping[str, str], file: Path) -> str:
    """The dtype that all arrays share, of name -> dtype."""
    known = set(names.values())
    if len(known) != 1 or not known <= set(IMPORTED):
        told = ", ".join(f"{name} {dtype}" for name, dtype in sorted(names.items())[:4])
        raise BabelScopeError(
            f"{file}: all arrays of a store have one dtype of {', '.join(IMPORTED)}; found {told}",
            "convert them, or import them into several stores",
        )
    return known.pop()


def _prompts(source: Source) -> tuple[PromptSet, bool]:
    """The prompts of the source, and whether it knows their texts. Where it does not, the item stands for them."""
    texts = field_of(source.about, "texts", dict, source.file, {})
    covariates = field_of(source.about, "covariates", dict, source.file, {})
    for language, given in texts.items():
        if language not in source.items or not isinstance(given, dict):
            raise BabelScopeError(
                f"{source.file}: field 'texts' has {language!r}, expected a language of the source with an object "
                "of item -> text",
                f"languages are {', '.join(source.items)}",
            )
    known = all(isinstance(texts.get(g, {}).get(item), str) for g, items in source.items.items() for item in items)
    if texts and not known:
        raise BabelScopeError(f"{source.file}: field 'texts' lacks items", "give the text of every item, or none")
    if not all(isinstance(values, dict) for values in covariates.values()):
        raise BabelScopeError(
            f"{source.file}: field 'covariates' is no object of item -> object", "docs/exchange.md has an example"
        )
    prompts = tuple(
        Prompt(item, language, texts[language][item] if known else item, covariates=covariates.get(item, {}))
        for language, items in source.items.items()
        for item in items
    )
    name = field_of(source.about, "prompts", str, source.file, "imported")
    return PromptSet(name, prompts, {"imported": True, "texts_known": known}), known


def _plan(source: Source, prompts: PromptSet, kind: str, sha256: str) -> CapturePlan:
    """A plan whose identity is that of the imported bytes, since nobody here knows what ran."""
    about, file = source.about, source.file
    deepest = max((site.layer + 1 for site in source.sites if site.layer is not None), default=1)
    layers = field_of(about, "n_layers", int, file, deepest)
    if layers < deepest:
        raise BabelScopeError(
            f"{file}: field 'n_layers' is {layers}, but there is a layer {deepest - 1}", "count the blocks of the model"
        )
    model = ModelRef(
        field_of(about, "model", str, file), field_of(about, "architecture", str, file, "unknown"), layers,
        source.dtype, "", "", n_encoder_layers=field_of(about, "n_encoder_layers", int, file, 0),
    )  # fmt: skip
    per_item = sum(int(np.prod(source.unit[s.name])) for s in source.sites) * DTYPES[source.dtype].itemsize
    rows = [n for lengths in source.lengths.values() for n in lengths.values()] if source.position.ragged else [1]
    size = max(1, int(per_item * float(np.mean(rows or [1]))))
    return CapturePlan(
        model=model, prompts_sha256=prompts.digest(), languages=prompts.languages, items=prompts.items,
        sites=source.sites, positions=(source.position,), answers="", backend=f"import:{kind}:{sha256}",
        block_items=min(max(BLOCK_BYTES // size, FEWEST), MOST), token_budget=0, dtype=source.dtype,
    )  # fmt: skip


def _block(source: Source, plan: CapturePlan, language: str, index: int) -> Block:
    there = set(source.items[language])
    planned = plan.block(index)
    numbers = [i for i in planned if plan.items[i] in there]
    items = [plan.items[i] for i in numbers]
    position, rows = source.position, {}
    lengths = source.lengths.get(language, {})
    for name in plan.site_layers():
        sites = [site for site in source.sites if site.name == name]
        values = np.stack([source.read(site, language, items) for site in sites])
        splits, beside = None, {}
        if position.ragged and source.beside is not None:
            splits = np.cumsum([0, *(lengths[item] for item in items)], dtype=np.int64)
            beside = {c: source.beside(c, sites[0], language, items) for c in position.coordinates}
        rows[name, position] = Rows(values, splits, beside)
    return Block(
        language, index, np.array(numbers, np.int64), rows,
        np.array([lengths.get(item, 0) for item in items], np.int64), ("",) * len(items),
        failed={i: "not in the imported source" for i in planned if i not in set(numbers)},
    )  # fmt: skip


def _digest(files: Sequence[Path]) -> str:
    """Hex sha256 over the names and bytes of files."""
    sha256 = hashlib.sha256()
    for path in files:
        sha256.update(path.name.encode("utf-8", "surrogateescape") + b"\0")
        for data in _pieces(path):
            sha256.update(data)
    return sha256.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(HASHED):
            yield data


def site_named(name: str, layer: int | None, file: Path) -> Site:
    """The site of a record with `site` and `layer`."""
    try:
        if split_site(name)[2] is not None:
            raise BabelScopeError(f"site {name!r} names its layer twice", "write the layer in the field 'layer'")
        site = Site.parse(name if layer is None else f"{name}@{layer}")
    except BabelScopeError as error:
        raise BabelScopeError(f"{file}: {error.problem}", error.hint) from None
    check_site(site, file)
    return site
