"""What TransformerLens and SAELens have in common: names of hooks, and a JSON file that says what each row is."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.importing import Source, field_of, one_dtype, position_of, texts_of
from babelscope.errors import BabelScopeError
from babelscope.schema import Site

# Names of HookedTransformer and of TransformerBridge, behind `blocks.3.`.
HOOKS = {
    "hook_resid_pre": "resid.pre", "hook_in": "resid.pre",
    "hook_resid_post": "resid.post", "hook_out": "resid.post",
    "hook_attn_out": "attn.out", "hook_mlp_out": "mlp.out",
    "mlp.hook_post": "mlp.neurons", "mlp.out.hook_in": "mlp.neurons",
    "attn.hook_z": "attn.heads", "attn.hook_v": "attn.v",
}  # fmt: skip
_HOOK = re.compile(r"blocks\.(\d{1,4})\.(.+)\Z")


@dataclass(frozen=True, slots=True)
class RowList:
    """Rows that another tool has kept, each of as many tokens, padding included.

    Parameters
    ----------
    file : Path
        The JSON that says what each row is.
    n_rows, n_tokens : int
        n_tokens is 0 where one token per row was kept.
    units : mapping
        Site -> (shape of one token, dtype).
    read : callable
        (site, row, tokens) -> (token, *unit).
    tokens : callable or None
        (row, tokens) -> token ids, where they are known.
    """

    file: Path
    n_rows: int
    n_tokens: int
    units: Mapping[Site, tuple[tuple[int, ...], "np.dtype[Any]"]]
    read: Callable[[Site, int, slice], NDArray[np.generic]]
    tokens: Callable[[int, slice], NDArray[np.generic]] | None


def site_of(hook: str) -> Site | None:
    """The site that a hook reads, as far as it means the same in every model."""
    match = _HOOK.match(hook)
    return Site(HOOKS[match[2]], int(match[1])) if match and match[2] in HOOKS else None


def source_of(rows: RowList, about: Mapping[str, Any], files: Sequence[Path], left_out: Sequence[str]) -> Source:
    """The rows as a source of a store.

    Raises
    ------
    BabelScopeError
        If the JSON does not fit the rows, naming the field.
    """
    file, position = rows.file, position_of(about, rows.file)
    if str(position) not in ("last", "all"):
        raise BabelScopeError(f"{file}: field 'position' is {str(position)!r}, expected last or all", "correct it")
    if position.ragged and (rows.tokens is None or not rows.n_tokens):
        raise BabelScopeError(
            f"{file}: field 'position' is 'all', but there are no ids of every token of a row",
            'write "position": "last", or keep the token ids (docs/exchange.md)',
        )
    places = _places(about, file, rows.n_rows)
    spans = _spans(about, file, rows.n_rows, rows.n_tokens or 1)
    special = field_of(about, "special_token_ids", list, file, [])

    def read(site: Site, language: str, items: Sequence[str]) -> NDArray[np.generic]:
        unit, dtype = rows.units[site]
        found = [np.empty((0, *unit), dtype)]
        for row in (places[language][item] for item in items):
            stop = spans[row].stop
            found.append(rows.read(site, row, spans[row] if position.ragged else slice(stop - 1, stop)))
        return np.concatenate(found)

    def beside(name: str, _: Site, language: str, items: Sequence[str]) -> NDArray[np.generic]:
        assert rows.tokens is not None  # refused above
        ids = [rows.tokens(row, spans[row]) for row in (places[language][item] for item in items)]
        joined = np.concatenate([np.empty(0, np.int32), *ids]).astype(np.int32)
        return np.isin(joined, special).astype(np.uint8) if name == "special" else joined

    lengths = {g: {i: spans[row].stop - spans[row].start for i, row in own.items()} for g, own in places.items()}
    return Source(
        about, file, {g: list(own) for g, own in places.items()}, tuple(sorted(rows.units)),
        {site.name: unit for site, (unit, _) in rows.units.items()},
        one_dtype({str(site): dtype.name for site, (_, dtype) in rows.units.items()}, files[0]),
        read, tuple(files), lengths if rows.n_tokens else {}, beside, tuple(left_out),
    )  # fmt: skip


def _places(about: Mapping[str, Any], file: Path, n_rows: int) -> dict[str, dict[str, int]]:
    """Language -> item -> its row, from the fields `items` and `languages`, which have one entry per row."""
    items = texts_of(about, "items", file, n_rows)
    languages = texts_of(about, "languages", file, n_rows)
    found: dict[str, dict[str, int]] = {}
    for row, (item, language) in enumerate(zip(items, languages, strict=True)):
        if found.setdefault(language, {}).setdefault(item, row) != row:
            raise BabelScopeError(
                f"{file}: rows {found[language][item]} and {row} are both item {item!r} in {language!r}",
                "give every row of a language an item of its own",
            )
    return found


def _spans(about: Mapping[str, Any], file: Path, n_rows: int, width: int) -> list[slice]:
    """Where the real tokens of each row lie, from the fields `lengths` (default: all) and `padding`."""
    lengths = field_of(about, "lengths", list, file, [width] * n_rows)
    padding = field_of(about, "padding", str, file, "right")
    if len(lengths) != n_rows or not all(isinstance(n, int) and 1 <= n <= width for n in lengths):
        raise BabelScopeError(
            f"{file}: field 'lengths' needs {n_rows} whole numbers from 1 to {width}",
            "count the real tokens of each row",
        )
    if padding not in ("left", "right"):
        raise BabelScopeError(f"{file}: field 'padding' is {padding!r}, expected left or right", "correct it")
    return [slice(0, n) if padding == "right" else slice(width - n, width) for n in lengths]
