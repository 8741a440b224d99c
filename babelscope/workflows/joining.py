"""The verb `item_gaps`: one row per item, to be joined with answers and with what probes predicted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from babelscope.activations_store import ActivationStore
from babelscope.analyses.item_gaps import by_language
from babelscope.analyses.item_gaps import item_gaps as gaps_of
from babelscope.analyses.study import make_study
from babelscope.errors import unknown_name
from babelscope.workflows.analysis import open_store


def item_gaps(
    store: str | Path | ActivationStore,
    metrics: Sequence[str] | str = ("cs", "nao"),
    *,
    source: str | None = None,
    sites: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    position: str | None = None,
    by: str | None = "auto",
) -> pd.DataFrame:
    """How much more alike an item is in two languages than different items are, item by item.

    Parameters
    ----------
    metrics : str or sequence of str
        Metrics that give a gap per item and pair of languages.
    source : str, optional
        Gaps of the pair of each language with this one, NaN in itself. Default: means over all pairs of a language.
    sites, languages, position, by
        As in `analyze`; mismatched items are those of the same group.

    Returns
    -------
    DataFrame
        item, language, group, metric, variant, site, layer (NA: mean over layers), gap. Its columns item and language
        are those of `store.answers` and of `Probing.items`, so that `merge` joins them.

    Raises
    ------
    BabelScopeError
        For anything that the user can fix.
    """
    opened = store if isinstance(store, ActivationStore) else open_store(store)
    study = make_study(opened, sites=sites, languages=languages, position=position, by=by)
    if source is not None and source not in study.languages:
        raise unknown_name("source language", source, study.languages)
    origin = None if source is None else study.languages.index(source)
    parts = []
    for found in gaps_of(study, [metrics] if isinstance(metrics, str) else list(metrics), "gaps"):
        items = study.groups[found.group]
        for layer, pairs in found.by_layer.items():
            gaps = by_language(pairs, len(study.languages), origin)
            parts.append(pd.DataFrame({
                "item": np.tile(items, len(study.languages)), "language": np.repeat(study.languages, len(items)),
                "group": found.group, "metric": found.metric, "variant": found.variant, "site": found.site,
                "layer": pd.array([layer] * gaps.size, dtype="Int64"), "gap": gaps.ravel(),
            }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)
