"""What is left of a layer when what tells languages apart linearly is taken away."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from babelscope.analyses.probing import Place, group_weights
from babelscope.analyses.statistics import Floats, benjamini_hochberg, paired, stream, verdicts
from babelscope.probes.grid import Answered, Question

COLUMNS = (
    "site", "layer", "position", "value", "n", "n_units", "before", "after", "chance", "change", "low", "high", "p",
    "q", "verdict",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Erased:
    """One layer before and after, on items that the eraser was not fitted on.

    Parameters
    ----------
    target, language : tuple of Answered
        The target and the language, asked of the raw rows and of the erased ones.
    gaps, found : tuple of ndarray of float64
        (item,) each, of the raw rows and of the erased ones (`held_out.held_out_gaps`).
    n_units : int
        Dimensions of a row.
    """

    target: tuple[Answered, Answered]
    language: tuple[Answered, Answered]
    gaps: tuple[Floats, Floats]
    found: tuple[Floats, Floats]
    n_units: int


def erasure_table(
    layers: Mapping[Place, Erased], target: Question, language: Question, *, n_boot: int, n_perm: int, seed: int
) -> pd.DataFrame:
    """Before and after LEACE, item by item: language, target within and across languages, cosine gap, retrieval.

    Returns
    -------
    DataFrame
        One row per layer and value. `language`, `target within` and `target across` are balanced accuracies;
        `change` is after less before, over the same items: interval by bootstrap over items, p by flipping signs
        item by item, q over the layers of a value. For `language` the eraser is fitted on one half of the items and the
        probe on the other, before and after: with fewer items than units it finds some of the language again.
    """
    weights = group_weights(target.groups, n_boot, stream(seed, "erasure", "bootstrap"))
    n_classes, n_languages = len(target.target.classes), len(target.languages)
    of_fold = 1 / np.mean([(target.folds == fold).sum() for fold in np.unique(target.folds)])
    rows: list[dict[str, Any]] = []
    for place, layer in layers.items():
        values = {
            "language": (_right(layer.language, language, across=False), 1 / n_languages),
            "target within": (_right(layer.target, target, across=False), 1 / n_classes),
            "target across": (_right(layer.target, target, across=True), 1 / n_classes),
            "cosine gap": (layer.gaps, 0.0),
            "retrieval": (layer.found, float(of_fold)),
        }
        for name, ((before, after), chance) in values.items():
            found = paired(before, after, weights, n_perm=n_perm, level=0.95, rng=stream(seed, "erasure", name),
                           groups=target.groups)  # fmt: skip
            rows.append({
                "site": place.site.name, "layer": place.site.layer, "position": place.position, "value": name,
                "n": int(found.n_a), "n_units": layer.n_units, "before": np.nanmean(before),
                "after": np.nanmean(after), "chance": chance, "change": float(found.estimate),
                "low": float(found.low), "high": float(found.high), "p": float(found.p),
            })  # fmt: skip
    table = pd.DataFrame(rows)
    table["layer"] = pd.array(table["layer"].tolist(), dtype="Int64")
    table["q"] = table.groupby(["site", "position", "value"], sort=False)["p"].transform(benjamini_hochberg)
    table["verdict"] = verdicts(table["change"], table["low"], table["high"], table["q"], table["n"])
    return table[list(COLUMNS)]


def _right(answers: tuple[Answered, Answered], question: Question, *, across: bool) -> tuple[Floats, Floats]:
    """Share of an item's rows that are predicted right, before and after, (item,) each."""
    own = np.eye(len(question.languages), dtype=bool)
    chosen = ~own if across else own
    if question.trained == ("*",):
        chosen = np.ones((1, len(question.languages)), dtype=bool)
    else:
        chosen = chosen & question.usable[:, None] & question.usable[None]
    if not chosen.any():
        nothing = np.full(len(question.folds), np.nan)
        return nothing, nothing
    weights = _weights(question)
    before, after = (((a.predicted == question.target.codes) * weights)[chosen].mean(axis=0) for a in answers)
    return before, after


def _weights(question: Question) -> Floats:
    """What a row counts, (language, item): classes count alike within a language, so that chance is 1 / classes."""
    codes, n_classes = question.target.codes, len(question.target.classes)
    if question.target.scope == "language":
        return np.ones(codes.shape)
    sizes = np.stack([np.bincount(row, minlength=n_classes) for row in codes])
    return np.asarray(codes.shape[1] / (n_classes * np.take_along_axis(sizes, codes, axis=1)), np.float64)
