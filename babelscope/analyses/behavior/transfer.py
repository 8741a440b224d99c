"""XLTR, the cross-lingual transfer ratio: how much of what is right in one language is right in another.

Hu et al. (2024), arXiv:2406.16655, section 2.3.
"""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.accuracy import groups_of
from babelscope.analyses.behavior.scorings import scored
from babelscope.analyses.statistics import Floats, benjamini_hochberg, bootstrap_weights, interval, stream, verdicts
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Result

Chance = Literal["uniform", "majority"]
Mode = Literal["corrected", "paper", "both"]


class Published(NamedTuple):
    """How the authors' notebook computes XLTR for one of its figures; the source is English in all of them.

    Parameters
    ----------
    chance : float
        A_r, whatever the number of options.
    clip : bool
        At 0, before anything is averaged.
    averaged : bool
        Over the groups (families of tasks), which then have no rows of their own.
    """

    chance: float
    clip: bool
    averaged: bool = False


# By the figure that each was used for (methods sheet 1, table in 1.1).
PUBLISHED = {
    "strategyqa": Published(0.5, clip=True),
    "kfrd": Published(0.25, clip=True),
    "by-training-language": Published(0.0, clip=False),
    "cpt-sft": Published(0.5, clip=True, averaged=True),
}

COLUMNS = (
    "metric", "mode", "variant", "group", "language_a", "language_b", "n", "n_a", "n_both", "known_a", "accuracy_a",
    "accuracy_b", "chance", "xltr", "xltr_low", "xltr_high", "null", "excess", "excess_low", "excess_high", "kappa",
    "phi", "p", "q", "verdict",
)  # fmt: skip


def transfer(
    store: ActivationStore,
    source: str = "en",
    *,
    languages: Sequence[str] | None = None,
    by: str | None = "task",
    scoring: str = "labels",
    chance: Chance = "uniform",
    mode: Mode = "both",
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """XLTR from one language to each other one, beside what independent answers would give.

    `XLTR(s, t) = (|C_s and C_t| / |C_s| - A_r) / (1 - A_r)`, C the items answered correctly, A_r chance. It does not
    isolate transfer: where being right in t has nothing to do with being right in s, it is
    `(accuracy_t - A_r) / (1 - A_r)`, high in any language in which the model is good. So that is the `null` of every
    row, and `excess` is what XLTR adds to it.

    Parameters
    ----------
    source : str
        The language of C_s, any that the store has: the one the model was tuned in, where it was.
    by : str or None
        Item covariate that forms the groups; "task" is the covariate task, else dataset, else all; None for one group.
    scoring : str
        As in `accuracy`.
    chance : {"uniform", "majority"}
        A_r: mean of 1 / number of options, or the share of the commonest gold option.
    mode : {"corrected", "paper", "both"}
        "paper" gives the four variants of the published figures (`PUBLISHED`), each with its chance, its clipping
        and English as source; "corrected" clips nothing.

    Returns
    -------
    Result
        One row per variant, group and language: n items answered in both languages, n_a = |C_s|, n_both,
        known_a = |C_s| less the guesses, (accuracy_s - A_r) / (1 - A_r) * n; XLTR, null and excess with bootstrap
        intervals over items; Cohen's kappa and phi of being right; p of as many items right in both, given how many are
        in each (Fisher's exact, one-sided), q over the languages of a variant and group. NaN where C_s is empty.

    Raises
    ------
    BabelScopeError
        If the source is not in the store or nothing was answered correctly in it, and as `accuracy` does.
    """
    if source not in store.languages:
        raise unknown_name("source language", source, store.languages)
    if chance not in ("uniform", "majority"):
        raise unknown_name("chance", str(chance), ("uniform", "majority"))
    answers = scored(store, scoring)
    if languages is not None:
        wanted = dict.fromkeys([source, *languages])
        unknown = [g for g in wanted if g not in store.languages]
        if unknown:
            raise unknown_name("language", unknown[0], store.languages)
        answers = answers[answers["language"].isin(list(wanted))]
    answers = answers.assign(group=groups_of(store, by).reindex(answers["item"]).to_numpy()).dropna(subset=["group"])
    if not (answers["correct"][answers["language"] == source] == 1).any():
        raise BabelScopeError(
            f"{store.path}: no item was answered correctly in {source}, so nothing could be transferred from it",
            "name another language as source, or a model that can do the task",
        )
    rows: list[dict[str, object]] = []
    if mode in ("corrected", "both"):
        for group in _groups(answers, source, seed, n_boot):
            rows += group.rows("xltr", source, _chance(group.answers, chance), level, clip=False)
    if mode in ("paper", "both") and (answers["language"] == "en").any():
        rows += _published(answers, seed, n_boot, level)
    if not rows:
        raise BabelScopeError(
            f"{store.path}: no language to transfer to" + (", and English is the source of every published variant"
                                                           if mode == "paper" else ""),
            "name two languages, or --mode corrected",
        )  # fmt: skip
    table = pd.DataFrame(rows)
    keys = [table[name] for name in ("mode", "variant", "group")]
    table["q"] = table.groupby(keys, sort=False)["p"].transform(benjamini_hochberg)
    table["verdict"] = verdicts(table["excess"], table["excess_low"], table["excess_high"], table["q"], table["n_a"])
    about = {
        "store": store.fingerprint, "version": version("babelscope"), "source": source, "scoring": scoring, "by": by,
        "chance": chance, "seed": seed, "n_boot": n_boot, "interval": f"bootstrap over items, {100 * level:g} %",
        "definition": "(|C_s and C_t| / |C_s| - A_r) / (1 - A_r), arXiv:2406.16655, section 2.3",
        "null": "(accuracy_t - A_r) / (1 - A_r): being right in t independent of being right in s",
        "p": "Fisher's exact test of right in both, one-sided", "q": "Benjamini-Hochberg over languages of a group",
        "published": {name: how._asdict() for name, how in PUBLISHED.items()},
    }  # fmt: skip
    return Result("transfer", table[list(COLUMNS)], about)


class _Group(NamedTuple):
    """Answers of the items of a group, as a table and as (language, item), NaN where an answer is undefined."""

    name: str
    answers: pd.DataFrame
    languages: tuple[str, ...]
    correct: Floats
    weights: Floats

    def rows(self, variant: str, source: str, chance: float, level: float, *, clip: bool) -> list[dict[str, object]]:
        mode = "paper" if variant in PUBLISHED else "corrected"
        a = self.correct[self.languages.index(source)]
        others = [(g, self.correct[i]) for i, g in enumerate(self.languages) if g != source]
        about = {"metric": "xltr", "mode": mode, "variant": variant, "group": self.name, "language_a": source}
        return [{**about, "language_b": g, **_pair(a, b, self.weights, chance, level, clip=clip)} for g, b in others]


def _groups(answers: pd.DataFrame, source: str, seed: int, n_boot: int) -> Iterator[_Group]:
    for name, part in answers.groupby("group", sort=False):
        wide = part.pivot_table(index="language", columns="item", values="correct", sort=False, dropna=False)
        if source not in wide.index:
            continue
        weights = bootstrap_weights(wide.shape[1], n_boot, stream(seed, "transfer", str(name)))
        yield _Group(str(name), part, tuple(map(str, wide.index)), wide.to_numpy(float), weights)


def _published(answers: pd.DataFrame, seed: int, n_boot: int, level: float) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    groups = list(_groups(answers, "en", seed, n_boot))
    for name, how in PUBLISHED.items():
        rows = [row for g in groups for row in g.rows(name, "en", how.chance, level, clip=how.clip)]
        if how.averaged and rows:
            rows = _averaged(rows)
        found += rows
    return found


def _averaged(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The mean over groups, as published: no interval and no test was. Undefined where it is in a group."""
    table = pd.DataFrame(rows)
    averaged = ["xltr", "null", "excess", "chance"]
    cells = table.groupby("language_b", sort=False)[averaged]
    means = cells.mean().where(cells.count() == cells.size().to_numpy()[:, None])
    sums = table.groupby("language_b", sort=False)[["n", "n_a", "n_both", "known_a"]].sum()
    first = {k: rows[0][k] for k in ("metric", "mode", "variant", "language_a")}
    nothing = dict.fromkeys(set(COLUMNS) - {*first, *means, *sums, "group", "language_b", "q", "verdict"}, np.nan)
    both = means.join(sums)
    return [{**nothing, **first, "group": "mean of groups", "language_b": g, **both.loc[g]} for g in both.index]


def _pair(a: Floats, b: Floats, weights: Floats, chance: float, level: float, *, clip: bool) -> dict[str, object]:
    """XLTR of being right, 1.0 or 0.0 by item, and everything beside it."""
    known = ~np.isnan(a) & ~np.isnan(b)
    a, b, weights = a[known], b[known], weights[:, known]
    ones = np.ones((1, len(a)))
    xltr, null = ratios(a, b, ones, chance, clip=clip)
    boot_xltr, boot_null = ratios(a, b, weights, chance, clip=clip)
    low, high = interval(boot_xltr[None], level)
    excess_low, excess_high = interval((boot_xltr - boot_null)[None], level)
    counts = _counts(a, b)
    n = int(counts.sum())
    return {
        "n": n, "n_a": int(a.sum()), "n_both": int(counts[1, 1]),
        "known_a": max(0.0, (a.mean() - chance) / (1 - chance) * n) if n else 0.0,
        "accuracy_a": a.mean() if n else np.nan, "accuracy_b": b.mean() if n else np.nan, "chance": chance,
        "xltr": xltr[0], "xltr_low": low[0], "xltr_high": high[0], "null": null[0], "excess": xltr[0] - null[0],
        "excess_low": excess_low[0], "excess_high": excess_high[0], **_agreement(counts),
        "p": float(stats.fisher_exact(counts, alternative="greater").pvalue) if a.sum() else np.nan,
    }  # fmt: skip


def ratios(a: Floats, b: Floats, weights: Floats, chance: float, *, clip: bool) -> tuple[Floats, Floats]:
    """XLTR and its null in every resample, NaN where nothing was right in the source."""
    with np.errstate(invalid="ignore", divide="ignore"):
        xltr = (weights @ (a * b) / (weights @ a) - chance) / (1 - chance)
        null = (weights @ b / weights.sum(axis=1) - chance) / (1 - chance)
    return (np.maximum(xltr, 0), np.maximum(null, 0)) if clip else (xltr, null)


def _counts(a: Floats, b: Floats) -> NDArray[np.int64]:
    """Items wrong or right in the one language (row) and in the other (column)."""
    counts = np.zeros((2, 2), np.int64)
    np.add.at(counts, (a.astype(int), b.astype(int)), 1)
    return counts


def _agreement(counts: NDArray[np.int64]) -> dict[str, float]:
    """Cohen's kappa and phi; NaN where all items are right, or all wrong, in a language (kappa: in both)."""
    n = counts.sum()
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.float64(rows @ columns) / np.float64(n) ** 2
        kappa = (np.trace(counts) / np.float64(n) - expected) / (1 - expected)
        phi = (counts[1, 1] * counts[0, 0] - counts[0, 1] * counts[1, 0]) / np.sqrt(
            np.float64(rows.prod()) * np.float64(columns.prod())
        )
    return {"kappa": float(kappa), "phi": float(phi)}


def _chance(answers: pd.DataFrame, chance: Chance) -> float:
    items = answers.drop_duplicates("item")
    if chance == "majority":
        return float(items["gold"].value_counts(normalize=True).iloc[0])
    return float((1 / items["n_options"]).mean())
