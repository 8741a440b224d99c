"""Which option counts as the model's answer: by label, by spelling of the label, by text, by what it wrote."""

import numpy as np
import pandas as pd

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.written import written_option
from babelscope.analyses.statistics import Floats
from babelscope.errors import BabelScopeError, unknown_name

SCORINGS = {
    "labels": "the option whose label is the likeliest next token, with or without a leading space",
    "labels-bare": "the same by the label without a leading space alone",
    "labels-spaced": "the same by the label with a leading space alone",
    "labels-last": "the same by the last token of the encoded label, as the code of arXiv:2406.16135 does",
    "texts": "the option whose text is the likeliest continuation of the prompt",
    "texts-per-token": "the same by the mean over the tokens of the text, for options of unequal length",
    "written": "the option that the model names in its greedy continuation",
}

# What a capture has to keep.
_KEPT_BY = {
    "labels": "capture with --answers labels",
    "labels-": "capture again: the store was begun by a version that did not keep spellings",
    "texts": "capture with --answers texts",
    "written": "capture with --continue 8, or more where the model says something before it answers",
}


def chosen(store: ActivationStore, scoring: str = "labels") -> pd.DataFrame:
    """The answers of a store by one scoring, in its row order.

    Parameters
    ----------
    scoring : str
        A key of `SCORINGS`.

    Returns
    -------
    DataFrame
        item, language, gold, choice (NA: undefined), correct (1, 0, or NaN without choice or gold), n_options, asked
        (whether the prompt has options and a gold one), undefined (the reason, where one is known), and the scores
        behind the choice as option_score_0..., none for `written`.

    Raises
    ------
    BabelScopeError
        For an unknown scoring, and one that the store keeps nothing for.
    """
    if scoring not in SCORINGS:
        raise unknown_name("scoring", scoring, SCORINGS)
    answers = store.answers
    shown = {(p.item, p.language): p for p in store.records}
    prompts = [shown.get(key) for key in zip(answers["item"], answers["language"], strict=True)]
    n_shown = np.array([0 if p is None else len(p.letters or p.options) for p in prompts])
    table = answers[["item", "language", "gold"]].assign(asked=(n_shown > 0) & answers["gold"].notna())
    if scoring == "written":
        if "continuation" not in answers:
            raise _not_kept(store, scoring)
        read = [
            None if p is None else written_option(p, w) for p, w in zip(prompts, answers["continuation"], strict=True)
        ]
        table["choice"] = pd.array(read, "Int64")
        table["undefined"] = np.where(table["choice"].isna(), "no option can be read in what was written", "")
        table["n_options"] = n_shown
    else:
        scores, table["undefined"] = _scores(store, answers, scoring)
        known = np.asarray(~np.isnan(scores).all(axis=1))
        best = np.full(len(scores), -1)
        best[known] = np.nanargmax(scores[known], axis=1) if known.any() else -1
        table["choice"] = pd.array(best, "Int64")
        table["choice"] = table["choice"].where(known)
        table["n_options"] = (~np.isnan(scores)).sum(axis=1)
        table = table.assign(**{f"option_score_{i}": column for i, column in enumerate(scores.T)})
    if scoring == "labels":  # what the capture has decided, with the tokens that it scored
        return table.assign(choice=answers["choice"], correct=answers["correct"])
    right = (table["choice"] == table["gold"]).astype("Float64")
    return table.assign(correct=right.to_numpy(float, na_value=np.nan))


def scored(store: ActivationStore, scoring: str = "labels") -> pd.DataFrame:
    """Answers that count, those of items with options and gold and an answer that is defined; else as `chosen`.

    Raises
    ------
    BabelScopeError
        As `chosen` does, and where no answer counts.
    """
    answers = chosen(store, scoring)
    counted = answers.dropna(subset=["correct"])
    if counted.empty:
        raise nothing_to_count(store, answers, scoring)
    return counted


def nothing_to_count(store: ActivationStore, answers: pd.DataFrame, scoring: str) -> BabelScopeError:
    """The reason why no answer counts, and what to do."""
    reasons = answers["undefined"][answers["undefined"] != ""]
    if len(reasons):
        by = "written answer" if scoring == "written" else "label"
        hint = "count by option texts instead (scoring='texts'), of a capture with --answers texts"
        return BabelScopeError(
            f"{store.path}: no item was scored by its {by}; in {len(reasons)} of {len(answers)} prompts "
            f"{reasons.iloc[0]}",
            hint if scoring in ("labels", "written") else "count by scoring='labels', the better of both spellings",
        )
    return _not_kept(store, scoring)


def _not_kept(store: ActivationStore, scoring: str) -> BabelScopeError:
    hint = next(hint for kept, hint in reversed(_KEPT_BY.items()) if scoring.startswith(kept))
    what = "was continued, or has options and a gold answer" if scoring == "written" else (
        "has options, their scores and a gold answer"
    )  # fmt: skip
    return BabelScopeError(f"{store.path}: no item {what}", hint)


def _scores(store: ActivationStore, answers: pd.DataFrame, scoring: str) -> tuple[Floats, "pd.Series[str]"]:
    """Scores (prompt, option), NaN where undefined, and why."""
    if scoring.startswith("labels-"):
        spelled = store.spellings
        spelled = spelled[spelled["spelling"] == scoring.removeprefix("labels-")].set_index(["item", "language"])
        if spelled.empty:
            raise _not_kept(store, scoring)
        spelled = spelled.reindex(pd.MultiIndex.from_frame(answers[["item", "language"]])).reset_index(drop=True)
        return spelled.filter(regex=r"^score_\d+$").to_numpy(float), spelled["undefined"]
    if scoring == "labels":
        return answers.filter(regex=r"^score_\d+$").to_numpy(float), answers["undefined"]
    scores = answers.filter(regex=r"^text_score_\d+$").to_numpy(float)
    if scoring == "texts-per-token":
        tokens = answers.filter(regex=r"^text_tokens_\d+$").to_numpy(float)
        scores = scores / np.where(tokens > 0, tokens, np.nan)
    return scores, pd.Series("", index=answers.index)
