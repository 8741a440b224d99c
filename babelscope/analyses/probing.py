"""What probes find in every layer, as tables: each score beside shuffled labels, a control task and an interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.statistics import (
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    interval,
    max_t,
    mean_of_defined,
    permutation_p,
    resampled_means,
    share,
    stream,
    verdicts,
)  # fmt: skip
from babelscope.probes.grid import Answered, Question, balanced_accuracy
from babelscope.schema import Site

COLUMNS = (
    "target", "probe", "variant", "site", "layer", "position", "pairs", "language_a", "language_b", "n", "n_groups",
    "n_pairs", "n_classes", "score", "low", "high", "chance", "null", "gap", "gap_low", "gap_high", "recognition",
    "recognition_low", "recognition_high", "n_control", "control", "control_low", "control_high", "selectivity",
    "selectivity_low", "selectivity_high", "transfer", "transfer_low", "transfer_high", "p", "q", "p_max", "verdict",
)  # fmt: skip

# Rows that are corrected together: layers and pairs of languages of one kind.
FAMILY = ["variant", "site", "position", "pairs"]
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Place:
    """Where activations were read."""

    site: Site
    position: str


def probe_table(
    found: Mapping[Place, Sequence[Answered]], question: Question, *, probe: str, n_boot: int, seed: int
) -> pd.DataFrame:
    """Scores of a probe in every layer, variant and pair of languages.

    Score is balanced accuracy, the mean over classes of the share predicted right, on items that the probe was not
    fitted on, in any language. `pairs` says what a row is: "one" pair of the language of the fit and that of the test,
    the mean "within" languages or "across" two, or "all" languages fitted at once. `null` is the score with shuffled
    labels, to which the probe was fitted anew. `control` is the score of random labels of types of items, the same in
    all languages (Hewitt and Liang 2019, arXiv:1909.03368), on the `n_control` items that the probe was not fitted on
    and whose type it was; `selectivity` is score less control. `recognition` is the score of a random label of each
    item, the same in all languages, on items that the probe was fitted on in another language: how well it could
    remember them, had they leaked. Nothing known gives `chance` to both. `transfer` is (score - chance) across over
    that within the language of the test, NaN where the latter is not above chance.

    Returns
    -------
    DataFrame
        `COLUMNS`. Intervals resample items, or the `n_groups` groups of items that belong together; p is that of the
        score among shuffled labels, NaN where that would say nothing (`script`); q is Benjamini-Hochberg and p_max the
        family-wise one over the layers and pairs of a kind. p_max decides the verdict. Means are over the `n_pairs`
        pairs of languages for which the score is defined: in both languages every class has as many items as there are
        folds, and some in the training items of each fold.
    """
    weights = group_weights(question.groups, n_boot, stream(seed, "probe", "bootstrap"))
    about = {"target": question.target.name, "probe": probe}
    rows: list[dict[str, Any]] = []
    drawn: list[Floats] = []
    for place, answers in found.items():
        for answer in answers:
            where = {
                **about, "variant": answer.variant, "site": place.site.name, "layer": place.site.layer,
                "position": place.position,
            }  # fmt: skip
            for cells, shuffled in _cells(answer, question, weights):
                rows.append({**where, **cells})
                drawn.append(shuffled)
    table = pd.DataFrame(rows)
    table["layer"] = pd.array(table["layer"].tolist(), dtype="Int64")
    table["n_groups"] = len(np.unique(question.groups))
    table["p"] = [_p(s, d, question) for s, d in zip(table["score"].to_numpy(float), drawn, strict=True)]
    keys = [table[name] for name in FAMILY]
    table["q"] = table.groupby(keys, sort=False)["p"].transform(benjamini_hochberg)
    table["p_max"] = np.nan
    for _, places in table.groupby(keys, sort=False).indices.items():
        stacked = np.stack([drawn[i] for i in places])
        observed = table["score"].where(table["p"].notna()).to_numpy(float)[places]
        table.loc[places, "p_max"] = max_t(observed, stacked)
    # Many layers and pairs are tested by few shuffles: the least q of one good layer would be layers / (1 + shuffles).
    table["verdict"] = verdicts(table["gap"], table["gap_low"], table["gap_high"], table["p_max"], table["n_groups"])
    # Where labels tell languages apart there is no transfer, and no control.
    return table.reindex(columns=list(COLUMNS))


def group_weights(groups: NDArray[np.int64], n_boot: int, rng: np.random.Generator) -> Floats:
    """How often each item is in a resample of groups, (resample, item)."""
    names, place = np.unique(groups, return_inverse=True)
    return bootstrap_weights(len(names), n_boot, rng)[:, place]


def _p(score: float, shuffled: Floats, question: Question) -> float:
    """P of a score among shuffled labels; NaN where nothing could be told by it.

    That is where all scores are the same, as of activations that do not vary, and where languages share a label, as a
    script: shuffled within items, they tell only that languages differ, whatever it is that they share.
    """
    shared = question.target.scope == "language" and len(question.target.classes) < len(question.languages)
    if shared or not len(shuffled) or (shuffled == score).all():
        return float("nan")
    return float(permutation_p(np.array(score), shuffled))


def _cells(answer: Answered, question: Question, weights: Floats) -> list[tuple[dict[str, Any], Floats]]:
    """Rows of one layer with their scores by shuffled labels (permutation,)."""
    labels, n_classes = question.target.codes, len(question.target.classes)
    chance = 1 / n_classes
    of_language = question.target.scope == "language"
    ones = np.ones((1, labels.shape[1]))
    score, resampled = (_scores(answer.predicted, labels, n_classes, w, of_language) for w in (ones, weights))
    if not of_language:
        lacking = ~question.usable
        score[lacking], resampled[lacking] = np.nan, np.nan
        score[:, lacking], resampled[:, lacking] = np.nan, np.nan
    beside = {name: (mean_of_defined(x), resampled_means(x, weights)) for name, x in (
        ("recognition", answer.recognized), ("control", answer.control)
    )}  # fmt: skip
    places = [(a, b) for a in range(len(question.trained)) for b in range(len(question.languages))]
    kinds = {("one", *_named(question, a, b)): [(a, b)] for a, b in places}
    if not of_language:
        kinds[("within", "*", "*")] = [(a, b) for a, b in places if a == b]
        if len(question.languages) > 1:
            kinds[("across", "*", "*")] = [(a, b) for a, b in places if a != b]
    found = []
    within = {b: (score[b, b, 0], resampled[b, b]) for b in range(len(question.languages))} if not of_language else {}
    for (pairs, name_a, name_b), cells in kinds.items():
        # Where hardly an answer of a language is wrong, `correct` cannot be learned or scored.
        known = [cell for cell in cells if not np.isnan(score[cell][0])] or cells[:1]
        a, b = (np.array(x) for x in zip(*known, strict=True))
        shuffled = answer.shuffled[a, b].mean(axis=0)
        boot = resampled[a, b].mean(axis=0)
        row = _row(score[a, b, 0].mean(), boot, shuffled, chance)
        for name, (value, drawn) in beside.items():
            row |= _between(name, mean_of_defined(value[a, b]), mean_of_defined(drawn[a, b], axis=0))
        controls = mean_of_defined(beside["control"][1][a, b], axis=0)
        row |= _between("selectivity", row["score"] - row["control"], boot - controls)
        if pairs == "across" or (pairs == "one" and name_a != name_b and not of_language):
            own = [within[k] for k in b.tolist()]
            row |= _transfer(score[a, b, 0].mean(), boot, own, chance)
        row |= {"pairs": pairs, "language_a": name_a, "language_b": name_b, "n": labels.shape[1],
                "n_pairs": len(known), "n_classes": n_classes,
                "n_control": int((~np.isnan(answer.control[a, b])).any(axis=0).sum())}  # fmt: skip
        found.append((row, shuffled))
    if of_language:
        found.append(_together(answer, question, weights))
    return found


def _named(question: Question, a: int, b: int) -> tuple[str, str]:
    return question.trained[a], question.languages[b]


def _scores(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], n_classes: int, weights: Floats, of_language: bool
) -> Floats:
    """(trained, language, resample): balanced accuracy, or the share right where a language is one class."""
    if of_language:
        return resampled_means((predicted == labels).astype(np.float64), weights)
    return balanced_accuracy(predicted, labels, n_classes, weights)


def _row(score: float, resampled: Floats, shuffled: Floats, chance: float) -> dict[str, Any]:
    low, high = interval(resampled[None], LEVEL)
    null = float(shuffled.mean())
    return {
        "score": float(score), "low": low[0], "high": high[0], "chance": chance, "null": null, "gap": score - null,
        "gap_low": low[0] - null, "gap_high": high[0] - null,
    }  # fmt: skip


def _between(name: str, value: Floats | float, resampled: Floats) -> dict[str, Any]:
    low, high = interval(resampled[None], LEVEL)
    return {name: float(value), f"{name}_low": low[0], f"{name}_high": high[0]}


def _transfer(score: float, resampled: Floats, own: Sequence[tuple[float, Floats]], chance: float) -> dict[str, Any]:
    """(score - chance) across over within, where the language of the test can be read in that language at all."""
    within, boot = float(np.mean([s for s, _ in own])), np.mean([r for _, r in own], axis=0)
    if not interval(boot[None], LEVEL)[0][0] > chance:
        return {}
    return _between("transfer", (score - chance) / (within - chance), share(resampled - chance, boot - chance))


def _together(answer: Answered, question: Question, weights: Floats) -> tuple[dict[str, Any], Floats]:
    """The row of all languages: items are resampled, each with its rows in all of them."""
    labels, n_classes = question.target.codes, len(question.target.classes)
    n_languages = len(question.languages)
    flat = answer.predicted[0].reshape(1, -1), labels.reshape(1, -1)
    score = float(balanced_accuracy(*flat, n_classes)[0])
    resampled = balanced_accuracy(*flat, n_classes, np.tile(weights, (1, n_languages)))[0]
    row = _row(score, resampled, answer.shuffled_all[0], 1 / n_classes)
    row |= {"pairs": "all", "language_a": "*", "language_b": "*", "n": labels.shape[1], "n_pairs": n_languages,
            "n_classes": n_classes}  # fmt: skip
    return row, answer.shuffled_all[0]


def item_table(
    found: Mapping[Place, Sequence[Answered]], question: Question, items: Sequence[str]
) -> pd.DataFrame:  # fmt: skip
    """What the probes said of every item, to be joined with answers and with gaps of similarity.

    Returns
    -------
    DataFrame
        item, language, site, layer, position, variant; `label` and `predicted` by the probe of the language itself
        ("*" where one was fitted in all); `within`, whether that is right, and `across`, the share of the probes of
        other languages that are; NaN where the table has no score. Every prediction is of an item that the probe was
        not fitted on.
    """
    parts = []
    classes = np.array(question.target.classes, dtype=object)
    for place, answers in found.items():
        for answer in answers:
            right = (answer.predicted == question.target.codes).astype(np.float64)
            if question.target.scope != "language":
                right[~question.usable], right[:, ~question.usable] = np.nan, np.nan
            single = len(question.trained) == 1
            for k, language in enumerate(question.languages):
                own = 0 if single else k
                others = np.delete(right[:, k], own, axis=0)
                parts.append(pd.DataFrame({
                    "item": list(items), "language": language, "site": place.site.name,
                    "layer": pd.array([place.site.layer] * len(items), dtype="Int64"), "position": place.position,
                    "variant": answer.variant, "label": classes[question.target.codes[k]],
                    "predicted": classes[answer.predicted[own, k]], "within": right[own, k],
                    "across": mean_of_defined(others, axis=0),
                }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)
