"""Accuracy by the language of the context and the language of the question, beside that of either language alone.

Foroutan et al. (2023), arXiv:2310.15258, section 2: reasoning over a context in one language, asked in another.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from babelscope import layout
from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.scorings import scored
from babelscope.analyses.inference import mcnemar
from babelscope.analyses.statistics import (
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    interval,
    resampled_means,
    stream,
    verdicts,
)
from babelscope.datasets.language_pairs import parts_of
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Result

ALL = "all"
# The two monolingual cells that a mixed one is compared with.
BESIDE = ("question", "context")
_CELLS = ("n", "gap", "low", "high", "p", "q", "verdict")
COLUMNS = (
    "by", "value", "context", "question", "n", "accuracy", "low", "high", "chance", "majority",
    *(f"{beside}_{cell}" for beside in BESIDE for cell in _CELLS),
)  # fmt: skip


def has_pairs(languages: Sequence[str]) -> bool:
    """Whether any code is that of a mixed prompt, `a-b`."""
    return any(parts_of(code) for code in languages)


def language_matrix(
    source: ActivationStore | pd.DataFrame,
    *,
    by: str | None = "depth",
    scoring: str = "labels",
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """Accuracy of every context and question language, and what mixing the two costs.

    A prompt in the language `a-b` has its context in a and its question in b; one in `a` has both in a. The gap of a
    mixed cell is its accuracy minus that of the monolingual cell of the question language, and again of the context
    language, over the items that both answer.

    Parameters
    ----------
    source : ActivationStore or DataFrame
        A store with answers, or what `classify` returns: item, language, gold, n_options, correct, and `by`.
    by : str or None
        Covariate whose values get a matrix each, beside `all`. None: `all` alone.
    scoring : str
        As in `accuracy`; of a store.

    Returns
    -------
    Result
        One row per value, context and question language. `chance` is the mean of 1 / options, `majority` the share
        of the commonest right option. Intervals of accuracies are Wilson's, those of gaps resample items; p is
        McNemar's exact test, two-sided. q is Benjamini-Hochberg over all mixed cells, those of `all` on their own.
        Gaps of monolingual cells, and those whose monolingual cell is missing, are NaN. Codes of partly switched
        prompts, as `en-fr-25`, have no place in the matrix and are named in the provenance.

    Raises
    ------
    BabelScopeError
        If no code names two languages, for an unknown covariate, and as `accuracy` does.
    """
    if isinstance(source, ActivationStore):
        answers, fingerprint = _of_store(source, by, scoring), source.fingerprint
    else:
        answers, fingerprint = source.dropna(subset=["correct"]), ""
        if by is not None and by not in answers:
            raise unknown_name("covariate", by, map(str, answers.columns))
    spoken = list(dict.fromkeys(answers["language"]))
    if not has_pairs(spoken):
        raise BabelScopeError(
            "no prompt has its context in one language and its question in another",
            "name pairs as context-question, as --languages en,fr,en-fr",
        )
    left_out = [code for code in spoken if re.fullmatch(r".+-.+-\d\d", code)]
    answers = answers[~answers["language"].isin(left_out)]
    rows: list[dict[str, Any]] = []
    for value, part in _values(answers, by):
        weights_of = _Weights(seed, str(value), n_boot)
        place = {"by": by or "", "value": value}
        rows += ({**place, **row} for row in _matrix(part, weights_of, level))
    table = pd.DataFrame(rows)
    for beside in BESIDE:
        family = table["value"].eq(ALL)
        table[f"{beside}_q"] = table[f"{beside}_p"].groupby(family).transform(benjamini_hochberg)
        cells = [table[f"{beside}_{cell}"] for cell in ("gap", "low", "high", "q", "n")]
        table[f"{beside}_verdict"] = verdicts(*cells).where(table["context"] != table["question"], "")
    about = {
        "store": fingerprint, "version": version("babelscope"), "by": by, "scoring": scoring, "unit": "item",
        "seed": seed, "n_boot": n_boot, "languages": spoken, "left_out": left_out,
        "interval": f"accuracy: Wilson {100 * level:g} %; gaps: bootstrap over items, {100 * level:g} %",
        "gap": "accuracy of the mixed cell minus that of the monolingual one, over items answered in both",
        "p": "McNemar's exact test, two-sided", "q": "Benjamini-Hochberg over mixed cells; those of `all` on their own",
        "source": "arXiv:2310.15258, section 2",
    }  # fmt: skip
    return Result("matrix", table[list(COLUMNS)], about)


def wide(table: pd.DataFrame, value: str = ALL, cell: str = "accuracy") -> pd.DataFrame:
    """One matrix of the long table: a row per context language, a column per question language, NaN where unasked."""
    part = table[table["value"].astype(str) == value]
    order = list(dict.fromkeys([*part["question"], *part["context"]]))
    made = part.pivot_table(index="context", columns="question", values=cell, dropna=False)
    kept = [[g for g in order if g in axis] for axis in (made.index, made.columns)]
    return made.loc[kept[0], kept[1]].rename_axis(index="context \\ question", columns=None)


def matrices(table: pd.DataFrame) -> str:
    """The accuracies of every value as text, one matrix under another."""
    parts = []
    for value in dict.fromkeys(table["value"].astype(str)):
        by = table["by"].iloc[0]
        title = "all items" if value == ALL else f"{by} {value}"
        rows = wide(table, value).reset_index().to_dict("records")
        parts.append(f"accuracy, {title}\n{layout.table(rows)}")
    return "\n\n".join(parts)


class _Weights:
    """Bootstrap weights of a mixed cell and its reference, drawn by their names: other cells leave them alone."""

    def __init__(self, seed: int, value: str, n_boot: int) -> None:
        self.seed, self.value, self.n_boot = seed, value, n_boot

    def of(self, n: int, *names: str) -> Floats:
        return bootstrap_weights(n, self.n_boot, stream(self.seed, "matrix", self.value, *names))


def _of_store(store: ActivationStore, by: str | None, scoring: str) -> pd.DataFrame:
    answers = scored(store, scoring)
    if by is None:
        return answers
    if by not in store.covariates:
        raise unknown_name("covariate", by, map(str, store.covariates.columns))
    return answers.assign(**{by: store.covariates[by].reindex(answers["item"]).to_numpy()})


def _values(answers: pd.DataFrame, by: str | None) -> Iterator[tuple[str, pd.DataFrame]]:
    yield ALL, answers
    if by is not None:
        for value, part in answers.groupby(by):
            yield f"{value:g}" if isinstance(value, float) else str(value), part


def _matrix(answers: pd.DataFrame, weights: _Weights, level: float) -> Iterator[dict[str, Any]]:
    of_language = {str(g): part.set_index("item")["correct"] for g, part in answers.groupby("language", sort=False)}
    for code, part in answers.groupby("language", sort=False):
        context, question = parts_of(str(code)) or (str(code), str(code))
        n, right = len(part), int(part["correct"].sum())
        low, high = proportion_confint(right, n, method="wilson")
        yield {
            "context": context, "question": question, "n": n, "accuracy": right / n, "low": low, "high": high,
            "chance": float((1 / part["n_options"]).mean()),
            "majority": float(part["gold"].value_counts(normalize=True).iloc[0]),
            **_gaps(of_language, str(code), {"question": question, "context": context}, weights, level),
        }  # fmt: skip


def _gaps(
    of_language: dict[str, "pd.Series[float]"], code: str, beside: dict[str, str], weights: _Weights, level: float
) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, language in beside.items():
        own = of_language[code]
        cells |= {f"{name}_{c}": np.nan for c in ("gap", "low", "high", "p")} | {f"{name}_n": 0}
        if language == code or language not in of_language:
            continue
        other = of_language[language]
        items = own.index.intersection(other.index, sort=False)
        if not len(items):
            continue
        a, b = (np.asarray(x[items], dtype=np.float64) for x in (own, other))
        low, high = interval(resampled_means(a - b, weights.of(len(items), code, name))[None], level)
        cells |= {
            f"{name}_n": len(items), f"{name}_gap": float((a - b).mean()), f"{name}_low": float(low[0]),
            f"{name}_high": float(high[0]), f"{name}_p": mcnemar(a, b),
        }  # fmt: skip
    return cells
