"""How good the translations are that a model wrote: chrF and BLEU beside those of other items and of copying."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.translation_measures import PERMUTATIONS, Comet, Measure, sacrebleu_measures
from babelscope.analyses.statistics import (
    NOT_DISTINGUISHABLE,
    SUPPORTED,
    benjamini_hochberg,
    bootstrap_weights,
    interval,
    mean_of_defined,
    permutation_p,
    stream,
    verdicts,
)
from babelscope.datasets.translation import direction_of
from babelscope.errors import BabelScopeError
from babelscope.schema import Result

SWAPS = 999

COLUMNS = (
    "measure", "language", "source", "target", "n", "n_no_reference", "n_empty", "n_copies", "copies", "copies_low",
    "copies_high", "score", "low", "high", "null", "p", "q", "verdict", "copy", "above_copy", "above_copy_low",
    "above_copy_high", "p_copy", "q_copy", "verdict_copy",
)  # fmt: skip


def has_translations(store: ActivationStore) -> bool:
    """Whether a store holds continuations of prompts that ask for translations."""
    return store.plan.continuation > 0 and any(direction_of(g) for g in store.languages)


def translation(
    store: ActivationStore, *, comet: str | None = None, n_boot: int = 2000, n_perm: int = PERMUTATIONS,
    level: float = 0.95, seed: int = 0,
) -> tuple[Result, Result]:  # fmt: skip
    """Quality of what a model wrote behind prompts of `cli.py data translation`, by direction.

    An output is the first line of the continuation, without spaces around it and behind any line ends that it begins
    with; the rest is not scored, as a model that goes on writes the next example. chrF (Popović 2015) and BLEU
    (Papineni et al. 2002) are those of sacrebleu (Post 2018), of the whole corpus; sentence chrF is in the other table.

    Parameters
    ----------
    comet : str, optional
        Checkpoint file of COMET (Rei et al. 2020) on this disk; nothing is downloaded.
    n_boot, n_perm, level, seed
        Bootstrap resamples of items, shuffles of references.

    Returns
    -------
    Result
        `translation`, one row per measure and direction: score with its interval over items; `null`, outputs beside the
        references of other items, with p (one-sided, references shuffled) and q over the directions of a measure;
        `copy`, the score of the *source* as it is, and `above_copy`, score minus copy, whose p exchanges output and
        source item by item (two-sided). Items without a reference do not count; empty outputs count, and score 0.
    Result
        `translation_items`: output, sentence chrF, sentence chrF of the source, whether it is empty or a copy.

    Raises
    ------
    BabelScopeError
        Without translation prompts, continuations, texts or sacrebleu; for a COMET that is not there.
    """
    if not has_translations(store):
        raise BabelScopeError(
            f"{store.path} holds no continuations of translation prompts",
            "capture prompts of `cli.py data translation` with --continue 64",
        )
    learned = () if comet is None else (Comet(comet),)
    answers = store.answers
    prompts = {(p.item, p.language): p for p in store.prompts.prompts}
    rows: list[dict[str, Any]] = []
    items: list[pd.DataFrame] = []
    signatures: dict[str, str] = {}
    for code in store.languages:
        direction = direction_of(code)
        if direction is None:
            continue
        table = answers[answers["language"] == code]
        asked = [prompts[item, code] for item in table["item"]]
        told = pd.DataFrame({
            "item": table["item"].to_numpy(), "language": code, "text": [p.segment("question") for p in asked],
            "reference": [p.answer for p in asked], "output": [first_line(t) for t in table["continuation"]],
        })  # fmt: skip
        known = told[told["reference"].str.strip() != ""].reset_index(drop=True)
        known["is_empty"] = known["output"] == ""
        known["is_copy"] = [_plain(a) == _plain(b) for a, b in zip(known["output"], known["text"], strict=True)]
        about = {"language": code, "source": direction[0], "target": direction[1], **_counts(known, len(told), level)}
        if not len(known):
            continue
        for measure in (*sacrebleu_measures(direction[1]), *learned):
            scored = _scored(measure, known, n_boot=n_boot, n_perm=n_perm, level=level, seed=seed)
            rows.append({"measure": measure.name, **about, **scored.columns})
            signatures[f"{measure.name} {code}"] = measure.signature()
            if measure.name == "chrF":
                known["chrf"], known["chrf_of_source"] = scored.each, scored.each_copy
        items.append(known)
    if not rows:
        raise BabelScopeError(f"{store.path}: no item has a reference", "capture prompts of `cli.py data translation`")
    about = {
        "store": store.fingerprint, "version": version("babelscope"), "seed": seed, "n_boot": n_boot, "n_perm": n_perm,
        "swaps": SWAPS, "unit": "item", "interval": f"percentile bootstrap over items, {100 * level:g} %",
        "output": "first line of the continuation", "sacrebleu": version("sacrebleu"), "signatures": signatures,
        "null": "the same outputs beside references of other items, mean over shuffles", "copy": "the source as output",
        "q": "Benjamini-Hochberg over the directions of a measure",
    }  # fmt: skip
    return Result("translation", _judged(pd.DataFrame(rows)), about), Result(
        "translation_items", pd.concat(items, ignore_index=True), about
    )


def first_line(continuation: str) -> str:
    """The first line of a text that is not empty, without spaces around it; "" if there is none."""
    return continuation.strip().partition("\n")[0].strip()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _counts(known: pd.DataFrame, n: int, level: float) -> dict[str, Any]:
    copies, counted = int(known["is_copy"].sum()), len(known)
    low, high = proportion_confint(copies, counted, 1 - level, method="wilson") if counted else (np.nan, np.nan)
    return {
        "n": counted, "n_no_reference": n - counted, "n_empty": int(known["is_empty"].sum()), "n_copies": copies,
        "copies": copies / counted if counted else np.nan, "copies_low": low, "copies_high": high,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Scored:
    columns: dict[str, float]
    each: list[float]
    each_copy: list[float]


def _scored(measure: Measure, known: pd.DataFrame, *, n_boot: int, n_perm: int, level: float, seed: int) -> _Scored:
    sources, references, outputs = ([*known[name]] for name in ("text", "reference", "output"))
    n, code = len(known), str(known["language"].iloc[0])
    own, copied = measure.rows(outputs, sources, references), measure.rows(sources, sources, references)
    score, copy = measure.score(own.sum(axis=0)), measure.score(copied.sum(axis=0))
    weights = bootstrap_weights(n, n_boot, stream(seed, "translation", code))
    drawn, drawn_copy = (np.array([measure.score(w) for w in weights @ x]) for x in (own, copied))
    (low, high), (above_low, above_high) = (interval(d[None], level) for d in (drawn, drawn - drawn_copy))
    null, p = _null(measure, score, outputs, sources, references, min(n_perm, measure.permutations), seed, code)
    swapped = stream(seed, "translation", code, "copy").random((SWAPS, n)) < 0.5
    moved = swapped.astype(np.float64) @ (copied - own)
    differences = np.array([
        measure.score(own.sum(axis=0) + m) - measure.score(copied.sum(axis=0) - m) for m in moved
    ])  # fmt: skip
    columns = {
        "score": score, "low": float(low[0]), "high": float(high[0]), "null": null, "p": p, "copy": copy,
        "above_copy": score - copy, "above_copy_low": float(above_low[0]), "above_copy_high": float(above_high[0]),
        "p_copy": float(permutation_p(np.asarray(abs(score - copy)), np.abs(differences))),
    }  # fmt: skip
    return _Scored(columns, [measure.score(row) for row in own], [measure.score(row) for row in copied])


def _null(
    measure: Measure, score: float, outputs: Sequence[str], sources: Sequence[str], references: Sequence[str],
    n_perm: int, seed: int, code: str,
) -> tuple[float, float]:  # fmt: skip
    """Mean score of shuffled corpora, without items that a shuffle left where they were, and p of the true one.

    Each shuffle is scored by itself: BLEU is smoothed by an amount that depends on the size of the corpus.
    """
    rng = stream(seed, "translation", code, "shuffle")
    shuffled, mismatched = [], []
    for _ in range(n_perm):
        order = rng.permutation(len(outputs))
        rows = measure.rows([outputs[k] for k in order], [sources[k] for k in order], references)
        shuffled.append(measure.score(rows.sum(axis=0)))
        moved = order != np.arange(len(order))
        mismatched.append(measure.score(rows[moved].sum(axis=0)) if moved.any() else np.nan)
    # A single shuffle, of a costly measure, shows a level and tests nothing.
    p = float(permutation_p(np.asarray(score), np.array(shuffled))) if n_perm > 1 else float("nan")
    return float(mean_of_defined(np.array(mismatched))), p


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    for names, q, word in (
        (("score", "low", "high", "null", "p"), "q", "verdict"),
        (("above_copy", "above_copy_low", "above_copy_high", "", "p_copy"), "q_copy", "verdict_copy"),
    ):
        table[q] = table.groupby("measure", sort=False)[names[4]].transform(benjamini_hochberg)
        above, low, high = (table[name] - (table[names[3]] if names[3] else 0.0) for name in names[:3])
        words = verdicts(above, low, high, table[q], table["n"])
        table[word] = words.mask((words == SUPPORTED) & (above < 0), NOT_DISTINGUISHABLE)
    return table[list(COLUMNS)]
