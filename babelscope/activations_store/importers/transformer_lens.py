"""A TransformerLens ActivationCache saved with safetensors, and a JSON file of the same name beside it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.importing import Source, read_json
from babelscope.activations_store.row_lists import RowList, site_of, source_of
from babelscope.activations_store.tensors import Tensor, tensors_of
from babelscope.errors import BabelScopeError
from babelscope.schema import Site

TOKENS = "tokens"


def importer(path: Path) -> Source:
    """Find the tensors of a cache that are sites, and which row is which item.

    Tensors are (row, token, *unit), or (row, *unit) where the cache kept one token per row.

    Raises
    ------
    BabelScopeError
        If the file is no safetensors, holds no site, or does not fit its JSON.
    """
    file = path.with_suffix(".json")
    about, tensors = read_json(file), tensors_of(path)
    sites = {site: tensors[name] for name in tensors if (site := site_of(name)) is not None}
    if not sites:
        raise BabelScopeError(
            f"{path} holds no tensor such as blocks.0.hook_resid_post; it has {', '.join(sorted(tensors)[:4])}",
            "save the cache under the names that TransformerLens gives",
        )
    n_rows, n_tokens = _extent(path, sites)
    ids = tensors.get(TOKENS)
    if ids is not None and ids.shape != (n_rows, n_tokens):
        raise BabelScopeError(
            f"{path}: tensor {TOKENS!r} has shape {ids.shape}, expected {(n_rows, n_tokens)}",
            "correct it or leave it out",
        )

    def read(site: Site, row: int, tokens: slice) -> NDArray[np.generic]:
        values = sites[site].read()
        return values[row, tokens] if n_tokens else values[row : row + 1]

    rows = RowList(
        file, n_rows, n_tokens,
        {site: (tensor.shape[2 if n_tokens else 1 :], tensor.dtype) for site, tensor in sites.items()},
        read, None if ids is None else lambda row, tokens: ids.read()[row, tokens],
    )  # fmt: skip
    return source_of(rows, about, (path, file), [n for n in tensors if site_of(n) is None and n != TOKENS])


def _extent(path: Path, sites: dict[Site, Tensor]) -> tuple[int, int]:
    """Rows, and tokens per row (0 where the cache kept one)."""
    found = {}
    for site, tensor in sites.items():
        extra = len(tensor.shape) - len(site.axes)
        if extra not in (1, 2):
            axes = ", ".join(site.axes)
            raise BabelScopeError(
                f"{path}: {site} has shape {tensor.shape}, expected (row, token, {axes}) or (row, {axes})",
                "keep the batch axis when the cache is saved",
            )
        found[site] = tensor.shape[:extra]
    if len(set(found.values())) != 1:
        told = ", ".join(f"{site} {extent}" for site, extent in list(found.items())[:4])
        raise BabelScopeError(f"{path}: its tensors have different rows or tokens: {told}", "save one batch per file")
    rows, *tokens = next(iter(found.values()))
    return rows, tokens[0] if tokens else 0
