"""How far ways of choosing that never solve the task get on a set of prompts with options."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import binomtest, false_discovery_control
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit

from babelscope.datasets.label_shortcuts import label_accuracies
from babelscope.datasets.logic_solver import solve_logical
from babelscope.datasets.rule_solver import solve_ruletaker
from babelscope.datasets.shortcuts import SHORTCUTS, expected_accuracy
from babelscope.datasets.solver import solve_arithmetic, solve_symbolic
from babelscope.datasets.text_units import words
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet

# Expected share of false alarms among the flags of a table, by Benjamini and Hochberg.
FALSE_FLAGS = 0.05

# Indices of all right options of an English prompt, by the covariate `task`.
SOLVERS: Mapping[str, Callable[[Prompt], tuple[int, ...]]] = MappingProxyType(
    {
        "logical": solve_logical,
        "arithmetic": lambda prompt: solve_arithmetic(prompt.text),
        "symbolic": lambda prompt: solve_symbolic(prompt.text),
        "ruletaker": solve_ruletaker,
    }
)

# One value per prompt, NaN where a heuristic does not apply; and the value expected by chance.
Scores: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
# Indices of items to learn from, and of items to judge.
Halves: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


def audit(prompts: PromptSet) -> pd.DataFrame:
    """Accuracy of surface heuristics, per language and rule, beside what guessing gives.

    `options_only` chooses by a bag of words of the options (logistic regression), `gold_position` the letter that is
    most often right; both learn from one half of the items and are judged by the other, and items with the
    same options stay together. Where all items have the same options, as true and false, the heuristics of
    `label_shortcuts` take their place. The other heuristics are those of `shortcuts`. Two rows are shares of
    faulty items, expected 0: `repeated_options`, and `no_single_answer`, where an independent solver knows the
    task (the generated ones without knowledge, if English is among the languages).

    Parameters
    ----------
    prompts : PromptSet
        Prompts without options or without a known answer are left out.

    Returns
    -------
    DataFrame
        Columns language, rule ("all" for all together), heuristic, n, accuracy, low and high (Wilson, 95 %), chance,
        and flag: whether the accuracy differs from chance, in either direction, since a wrong option that can
        be told is a help too (exact binomial test, at most 5 % of the flags of a table false by
        Benjamini-Hochberg; faulty items are always flagged).

    Raises
    ------
    BabelScopeError
        If no prompt has options and a right one among them.
    """
    asked = [p for p in prompts.prompts if len(p.options) > 1 and p.gold is not None]
    if not asked:
        raise BabelScopeError(
            f"prompt set {prompts.name!r} has no item with options and a right one among them",
            "audit a multiple-choice set, as `cli.py data audit kfrd-logical`",
        )
    rows = []
    for language in dict.fromkeys(p.language for p in asked):
        rows += _of_language(language, [p for p in asked if p.language == language])
    table = pd.DataFrame(rows)
    faults = table["chance"].eq(0) & table["accuracy"].gt(0)
    table["flag"] = (false_discovery_control(table.pop("p")) < FALSE_FLAGS) | faults
    return table


def _of_language(language: str, prompts: Sequence[Prompt]) -> list[dict[str, object]]:
    scores = _scores(prompts)
    rules = np.array([str(p.covariates.get("rule", "all")) for p in prompts])
    groups = {rule: rules == rule for rule in sorted(set(rules.tolist()))}
    if set(groups) != {"all"}:
        groups["all"] = np.ones(len(prompts), dtype=bool)
    rows: list[dict[str, object]] = []
    for rule, is_member in groups.items():
        for heuristic, (accuracy, chance) in scores.items():
            counted = is_member & ~np.isnan(accuracy)
            if counted.any():
                rows.append(
                    {
                        "language": language,
                        "rule": rule,
                        "heuristic": heuristic,
                        **_row(accuracy[counted], chance[counted]),
                    }
                )
    return rows


def _row(accuracy: NDArray[np.float64], chance: NDArray[np.float64]) -> dict[str, object]:
    n, mean, expected = len(accuracy), float(accuracy.mean()), float(chance.mean())
    # Ties share a point among options, which only narrows the spread: the test errs on the cautious side.
    tested = binomtest(round(mean * n), n, expected)
    # Wilson's interval around the mean itself, which ties make no whole number of hits.
    z2 = 1.959964**2
    middle = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * mean * (1 - mean) / n + z2**2 / (4 * n**2)) / (1 + z2 / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return {"n": n, "accuracy": mean, "low": low, "high": high, "chance": expected, "p": tested.pvalue}


def _scores(prompts: Sequence[Prompt]) -> dict[str, Scores]:
    chance = np.array([1 / len(p.options) for p in prompts])
    none = np.zeros(len(prompts))
    scores: dict[str, Scores] = {}
    for name, shortcut in SHORTCUTS.items():
        chosen = [(shortcut(p), p.gold or 0) for p in prompts]
        accuracy = [float("nan") if s is None else expected_accuracy(s, gold) for s, gold in chosen]
        scores[name] = np.array(accuracy), chance
    halves = _halves(prompts)
    if halves is not None:
        scores["gold_position"] = _gold_position(prompts, halves), chance
        scores["options_only"] = _options_only(prompts, halves), chance
    elif len({p.options for p in prompts}) == 1:
        scores.update({name: (accuracy, chance) for name, accuracy in label_accuracies(prompts).items()})
    scores["repeated_options"] = np.array([float(len(set(p.options)) < len(p.options)) for p in prompts]), none
    scores["no_single_answer"] = np.array([_is_faulty(p) for p in prompts]), none
    return scores


def _is_faulty(prompt: Prompt) -> float:
    """1 if the solver does not find exactly the option that counts as right; NaN if none knows the task."""
    solver = SOLVERS.get(str(prompt.covariates.get("task", ""))) if prompt.language == "en" else None
    if solver is None:
        return float("nan")
    try:
        return float(solver(prompt) != (prompt.gold,))
    except ValueError:
        # Prompts of one's own may use the name of a task that we generate.
        return float("nan")


def _halves(prompts: Sequence[Prompt]) -> Halves | None:
    """Items to learn from and items to judge; None if all items have the same options.

    One split, not several folds: folds learn from one another's items, which spreads their mean accuracy by half
    as much again as the binomial test assumes (measured), so that it raises false alarms.
    """
    # Together, because the options of a block of items may each be right once, as those of knowledge items are:
    # three of the answers would tell the fourth.
    _, groups = np.unique([repr(sorted(p.options)) for p in prompts], return_inverse=True)
    if groups.max() == 0:
        return None
    splitter = GroupShuffleSplit(1, test_size=0.5, random_state=0)
    learned, judged = next(splitter.split(np.zeros((len(prompts), 1)), groups=groups))
    return learned, judged


def _gold_position(prompts: Sequence[Prompt], halves: Halves) -> NDArray[np.float64]:
    learned, judged = halves
    gold = np.array([p.gold for p in prompts], dtype=np.int64)
    counts = np.bincount(gold[learned], minlength=max(len(p.options) for p in prompts)).astype(float)
    accuracy = np.full(len(prompts), np.nan)
    for i in judged:
        accuracy[i] = expected_accuracy(counts[: len(prompts[i].options)].tolist(), int(gold[i]))
    return accuracy


def _options_only(prompts: Sequence[Prompt], halves: Halves) -> NDArray[np.float64]:
    learned, judged = halves
    texts = [o for p in prompts for o in p.options]
    if not any(map(words, texts)):
        # Options of signs alone, as ">" and "<", have no words to learn from.
        return np.full(len(prompts), np.nan)
    is_gold = np.array([i == p.gold for p in prompts for i in range(len(p.options))])
    starts = np.cumsum([0, *(len(p.options) for p in prompts)])
    counts = csr_matrix(CountVectorizer(analyzer=words).fit_transform(texts), dtype=np.float64)
    rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in learned])
    model = LogisticRegression(max_iter=300).fit(counts[rows], is_gold[rows])
    score = np.round(model.decision_function(counts), 9)
    accuracy = np.full(len(prompts), np.nan)
    for i in judged:
        accuracy[i] = expected_accuracy(score[starts[i] : starts[i + 1]].tolist(), int(prompts[i].gold or 0))
    return accuracy
