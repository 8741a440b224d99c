"""A folder of activations that SAELens cached: Arrow files, to which an items.json is added that says what a row is."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from babelscope.activations_store.importing import Source, read_json
from babelscope.activations_store.row_lists import RowList, site_of, source_of
from babelscope.errors import BabelScopeError
from babelscope.schema import Site

TOKENS = "token_ids"


def importer(path: Path) -> Source:
    """Find the columns of a cache that are sites, and which row is which item.

    A row is a context; its columns, named as hooks are, hold (token, unit).

    Raises
    ------
    BabelScopeError
        If the folder holds no such Arrow files, no site, or does not fit its JSON.
    """
    file = path / "items.json"
    about = read_json(file)
    files = sorted([*path.glob("*.arrow"), *path.glob("*/*.arrow")])
    if not files:
        raise BabelScopeError(f"{path} holds no .arrow file", "name the folder that SAELens wrote its cache to")
    batches = [(source, batch) for source in files for batch in _batches(source)]
    names = batches[0][1].schema.names if batches else []
    columns = {site: name for name in names if (site := site_of(name)) is not None and len(site.axes) == 1}
    if not columns:
        raise BabelScopeError(
            f"{files[0]} has no column such as blocks.0.hook_resid_post; it has {', '.join(names) or 'none'}",
            "cache a hook that is a site of BabelScope (docs/exchange.md)",
        )
    forms = {site: _form(batches, name) for site, name in columns.items()}
    widths = {tokens for tokens, _, _ in forms.values()}
    if len(widths) != 1:
        raise BabelScopeError(f"{files[0]}: its columns have contexts of {sorted(widths)} tokens", "cache them anew")
    width = widths.pop()
    starts = np.cumsum([0, *(batch.num_rows for _, batch in batches)])

    def cell(name: str, row: int) -> NDArray[np.generic]:
        at = int(np.searchsorted(starts, row, side="right")) - 1
        return _flat(batches[at][1].column(name).slice(row - int(starts[at]), 1))

    def read(site: Site, row: int, tokens: slice) -> NDArray[np.generic]:
        return cell(columns[site], row).reshape(width, -1)[tokens]

    rows = RowList(
        file, int(starts[-1]), width, {site: ((unit,), dtype) for site, (_, unit, dtype) in forms.items()}, read,
        (lambda row, tokens: cell(TOKENS, row)[tokens]) if TOKENS in names else None,
    )  # fmt: skip
    left_out = [name for name in names if name not in (*columns.values(), TOKENS)]
    return source_of(rows, about, (*files, file), left_out)


def _batches(path: Path) -> list[Any]:
    """The record batches of an Arrow stream, mapped into memory."""
    try:
        return list(pa.ipc.open_stream(pa.memory_map(str(path))))
    except (pa.ArrowInvalid, OSError) as error:
        raise BabelScopeError(
            f"{path} is no Arrow stream: {str(error).splitlines()[0]}", "cache the activations again with SAELens"
        ) from None


def _form(batches: list[tuple[Path, Any]], name: str) -> "tuple[int, int, np.dtype[Any]]":
    """Tokens per row, units and dtype of a column, the same in every row."""
    forms = set()
    for path, batch in batches:
        if name not in batch.schema.names:
            raise BabelScopeError(f"{path} has no column {name!r}, which other files have", "leave one of them out")
        column = _storage(batch.column(name))
        try:
            tokens = pc.unique(pc.list_value_length(column)).to_pylist()
            units = pc.unique(pc.list_value_length(column.flatten())).to_pylist()
            dtype = np.dtype(column.flatten().flatten().type.to_pandas_dtype())
        except (AttributeError, NotImplementedError, TypeError, pa.ArrowException):
            raise BabelScopeError(
                f"{path}: column {name!r} is {column.type}, expected per row a list of tokens, each a list of numbers",
                "cache the activations again with SAELens",
            ) from None
        forms |= {(t, u, dtype) for t in tokens for u in units}
    if len(forms) != 1:
        raise BabelScopeError(
            f"{batches[0][0]}: rows of column {name!r} have different lengths", "cache them with one context size"
        )
    return forms.pop()


def _storage(column: Any) -> Any:
    return column.storage if isinstance(column.type, pa.BaseExtensionType) else column


def _flat(column: Any) -> NDArray[np.generic]:
    """All numbers of a column of nested lists."""
    column = _storage(column)
    while pa.types.is_nested(column.type):
        column = column.flatten()
    values: NDArray[np.generic] = column.to_numpy(zero_copy_only=False)
    return values
