"""A folder of .npy files with a manifest.json, such as `export --format numpy` writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.bfloat16 import BFLOAT16
from babelscope.activations_store.importing import (
    Source,
    field_of,
    one_dtype,
    position_of,
    read_json,
    site_named,
    texts_of,
)
from babelscope.errors import BabelScopeError
from babelscope.schema import Site

EXAMPLE = "docs/exchange.md has a complete example"


def importer(path: Path) -> Source:
    """Find the arrays of a folder, check their shapes, and map them; they are read block by block.

    Raises
    ------
    BabelScopeError
        For anything that contradicts the manifest, naming file, field and what was expected.
    """
    file = path / "manifest.json"
    about = read_json(file)
    position = position_of(about, file)
    items = texts_of(about, "items", file)
    values: dict[tuple[Site, str], NDArray[np.generic]] = {}
    beside: dict[tuple[str, str, str], NDArray[np.generic]] = {}
    files = [file]
    for number, record in enumerate(field_of(about, "arrays", list, file)):
        where = Path(f"{file}, arrays[{number}]")
        if not isinstance(record, dict):
            raise BabelScopeError(f"{where} is no object", EXAMPLE)
        name, language = field_of(record, "site", str, where), field_of(record, "language", str, where)
        source = _inside(path, field_of(record, "file", str, where), where)
        files.append(source)
        if "coordinate" in record:
            beside[name, language, field_of(record, "coordinate", str, where)] = _load(source)
            continue
        site = site_named(name, field_of(record, "layer", int, where, record.get("layer")), where)
        if (site, language) in values:
            raise BabelScopeError(f"{where}: {site} in {language!r} is there twice", "name each array once")
        values[site, language] = _as_kept(_load(source), record, source)
    if not values:
        raise BabelScopeError(f"{file}: field 'arrays' names no array of a site", EXAMPLE)
    languages = list(dict.fromkeys(language for _, language in values))
    lengths = {g: _lengths(values, beside, g, items, file) for g in languages} if position.ragged else {}
    starts = {g: np.cumsum([0, *(lengths[g][i] if lengths else 1 for i in items)]) for g in languages}
    unit = _check_shapes(values, {g: int(ends[-1]) for g, ends in starts.items()}, file)
    place = {item: number for number, item in enumerate(items)}
    if len(place) != len(items):
        raise BabelScopeError(f"{file}: field 'items' names an item twice", "give repeated items different names")

    def rows(array: NDArray[np.generic], language: str, wanted: Sequence[str]) -> NDArray[np.generic]:
        ends = starts[language]
        parts = [array[ends[place[item]] : ends[place[item] + 1]] for item in wanted]
        return np.concatenate([array[:0], *parts])

    def coordinate(name: str, site: Site, language: str, wanted: Sequence[str]) -> NDArray[np.generic]:
        key = site.name, language, name
        if key not in beside or len(beside[key]) != starts[language][-1]:
            raise BabelScopeError(
                f"{file}: position {position} needs the coordinate {name!r} of {site.name} in {language!r}, with one "
                "value per row", EXAMPLE,
            )  # fmt: skip
        return rows(beside[key], language, wanted).astype(np.uint8 if name == "special" else np.int32)

    return Source(
        about, file, dict.fromkeys(languages, items), tuple(dict.fromkeys(site for site, _ in values)), unit,
        one_dtype({f"{site} in {g}": array.dtype.name for (site, g), array in values.items()}, file),
        lambda site, language, wanted: rows(values[site, language], language, wanted),
        tuple(files), lengths, coordinate,
    )  # fmt: skip


def _inside(folder: Path, name: str, where: Path) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise BabelScopeError(f"{where}: field 'file' is {name!r}, expected a file in {folder}", "correct the name")
    return path


def _load(path: Path) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BabelScopeError(
            f"{path} is no .npy file of numbers: {error}", "write it with np.save(..., allow_pickle=False)"
        ) from None
    if not isinstance(array, np.ndarray):
        raise BabelScopeError(f"{path} holds several arrays", "save each array as .npy")
    return array


def _as_kept(array: NDArray[np.generic], record: dict[str, Any], path: Path) -> NDArray[np.generic]:
    """NumPy has no bfloat16: its bits come as uint16, and the manifest says so."""
    if record.get("dtype") == "bfloat16" and array.dtype == np.uint16:
        return array.view(BFLOAT16)
    if "dtype" in record and record["dtype"] != array.dtype.name:
        raise BabelScopeError(
            f"{path} is {array.dtype.name}, its manifest says {record['dtype']!r}",
            "correct the field 'dtype', or leave it out",
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _lengths(
    values: dict[tuple[Site, str], NDArray[np.generic]], beside: dict[tuple[str, str, str], NDArray[np.generic]],
    language: str, items: Sequence[str], file: Path,
) -> dict[str, int]:  # fmt: skip
    found = [beside.get((site.name, language, "row_splits")) for site, g in values if g == language]
    splits = found[0]
    good = splits is not None and splits.shape == (len(items) + 1,) and splits[0] == 0 and (np.diff(splits) >= 0).all()
    if splits is None or not good or not all(np.array_equal(splits, other) for other in found if other is not None):
        raise BabelScopeError(
            f"{file}: a position with many rows per item needs the coordinate 'row_splits' of every site in "
            f"{language!r}: {len(items) + 1} ascending whole numbers from 0, the same for all sites", EXAMPLE,
        )  # fmt: skip
    return dict(zip(items, np.diff(splits).tolist(), strict=True))


def _check_shapes(
    values: dict[tuple[Site, str], NDArray[np.generic]], rows: dict[str, int], file: Path
) -> dict[str, tuple[int, ...]]:
    unit: dict[str, tuple[int, ...]] = {}
    languages = {language for _, language in values}
    for (site, language), array in values.items():
        expected = unit.setdefault(site.name, array.shape[1:])
        if array.ndim != 1 + len(site.axes) or array.shape != (rows[language], *expected):
            axes = ", ".join(("row", *site.axes))
            raise BabelScopeError(
                f"{file}: {site} in {language!r} has shape {array.shape}, expected ({axes}) with {rows[language]} rows"
                f" and rows of shape {expected}", "one row per item, in the order of 'items'",
            )  # fmt: skip
        missing = languages - {g for s, g in values if s == site}
        if missing:
            raise BabelScopeError(
                f"{file}: {site} is missing in {', '.join(sorted(missing))}", "give every site in every language"
            )
    return unit
