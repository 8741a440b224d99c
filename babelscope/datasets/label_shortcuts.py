"""How well the label of an item is guessed from less than the task: for sets whose items all have the same options."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit
from sklearn.tree import DecisionTreeClassifier

from babelscope.datasets.text_units import sentences, words
from babelscope.schema import Prompt


def label_accuracies(prompts: Sequence[Prompt]) -> Mapping[str, NDArray[np.float64]]:
    """For each heuristic, 1 or 0 for each prompt that was judged and NaN for those that it learned from.

    `question_only` and `context_only` learn from a bag of words (logistic regression); `shared_words` from how often
    the words of the question occur in the context, together and apart (a decision tree). They learn from one half of
    the items and are judged by the other; items with the same context stay together. Empty if all items of
    a half have one label, or nothing is asked in a segment `question`.
    """
    gold = np.array([p.gold for p in prompts])
    questions, contexts = ([p.segment(name) for p in prompts] for name in ("question", "context"))
    _, groups = np.unique(contexts, return_inverse=True)
    if not all(questions) or groups.max() == 0:
        return {}
    learned, judged = next(GroupShuffleSplit(1, test_size=0.5, random_state=0).split(gold, groups=groups))
    if len(set(gold[learned])) < 2:
        return {}
    features: dict[str, Any] = {
        "question_only": _bag(questions),
        "context_only": _bag(contexts),
        "shared_words": np.array([_shared(q, c) for q, c in zip(questions, contexts, strict=True)]),
    }
    accuracies = {}
    for name, table in features.items():
        if name == "shared_words":
            model = DecisionTreeClassifier(max_depth=5, min_samples_leaf=10, random_state=0)
        else:
            model = LogisticRegression(max_iter=300)
        found = np.full(len(prompts), np.nan)
        found[judged] = model.fit(table[learned], gold[learned]).predict(table[judged]) == gold[judged]
        accuracies[name] = found
    return accuracies


def _bag(texts: Sequence[str]) -> csr_matrix:
    return csr_matrix(CountVectorizer(analyzer=words).fit_transform(texts), dtype=np.float64)


def _shared(question: str, context: str) -> list[int]:
    """Length of the question, and how its words lie in the sentences of the context."""
    asked = set(words(question))
    split = [set(words(s)) for s in sentences(context)]
    shared = [len(asked & s) for s in split]
    # Words of most sentences, as a copula, tell how a sentence is built, not what it says.
    counts = sorted(n for w in asked if (n := sum(w in s for s in split)) * 2 < len(split))
    return [len(words(question)), max(shared, default=0), sum(shared), min(counts, default=0), max(counts, default=0)]
