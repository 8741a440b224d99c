"""What `probe` does at one layer: a job that needs the store and nothing that another layer found."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store import ActivationStore
from babelscope.analyses.erasing import Erased
from babelscope.analyses.statistics import stream
from babelscope.probes.description_length import DescriptionLength, description_length
from babelscope.probes.grid import Answered, Question, answered
from babelscope.probes.held_out import held_out_gaps
from babelscope.probes.probe import Probe
from babelscope.probes.saved import FittedProbe, fitted_probe
from babelscope.probes.scikit import frequency_logistic
from babelscope.schema import Site

# Orders of the items, and shuffles of the labels, of a description length.
ORDERINGS, SHUFFLES = 5, 19


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every layer.

    Parameters
    ----------
    question : Question
    language : Question or None
        Which language a row is in, on the same folds, where languages are erased.
    probe : Probe
    variants : tuple of str
    items : tuple of str
    describe : bool
        Whether description lengths are wanted.
    seed : int
    """

    question: Question
    language: Question | None
    probe: Probe
    variants: tuple[str, ...]
    items: tuple[str, ...]
    describe: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Probed:
    """What one layer answered."""

    answers: list[Answered]
    fitted: dict[str, FittedProbe]
    erased: Erased | None = None
    described: dict[str, DescriptionLength] = field(default_factory=dict)


def probed(path: Path, site: Site, position: str, asked: Asked) -> Probed:
    """Everything that is asked of one layer; probes for use elsewhere are fitted on all items of the raw rows."""
    question = asked.question
    with ActivationStore.open(path) as store:
        block = store.select(str(site), languages=question.languages, items=asked.items, position=position).numpy()
    X = block.reshape(*block.shape[:2], -1)
    answers = answered(X, question, asked.probe, asked.variants)
    return Probed(
        answers, _fitted(X, question, asked.probe), _erased(X, answers, asked),
        _described(X, question, asked.seed) if asked.describe else {},
    )  # fmt: skip


def _fitted(X: NDArray[np.generic], question: Question, probe: Probe) -> dict[str, FittedProbe]:
    codes, n_classes = question.target.codes, len(question.target.classes)
    found = {}
    for k, language in enumerate(question.trained):
        rows, labels = (X.reshape(-1, X.shape[-1]), codes.ravel()) if language == "*" else (X[k], codes[k])
        if len(np.unique(labels)) == n_classes:  # where all is right, there is nothing to tell apart
            found[language] = fitted_probe(rows, labels, n_classes, probe)
    return found


def _erased(X: NDArray[np.generic], answers: list[Answered], asked: Asked) -> Erased | None:
    if asked.language is None:
        return None
    values = np.asarray(X, np.float64)
    by_variant = {a.variant: a for a in answers}
    if "raw" not in by_variant:
        by_variant |= {a.variant: a for a in answered(X, asked.question, asked.probe, ["raw"])}
    spoken = answered(X, asked.language, asked.probe, ["raw", "erased"])
    before, after = (held_out_gaps(values, asked.question.folds, v) for v in ("raw", "erased"))
    return Erased(
        (by_variant["raw"], by_variant["erased"]), (spoken[0], spoken[1]), (before[0], after[0]),
        (before[1], after[1]), X.shape[-1],
    )  # fmt: skip


def _described(X: NDArray[np.generic], question: Question, seed: int) -> dict[str, DescriptionLength]:
    """Description length of the labels in each language, or of all rows where labels tell languages apart."""
    codes, groups = question.target.codes, question.groups
    classes = np.arange(len(question.target.classes))
    found = {}
    for k, language in enumerate(question.trained):
        rows, labels, items = X[k], codes[k], groups
        if language == "*":
            rows, labels, items = X.reshape(-1, X.shape[-1]), codes.ravel(), np.tile(groups, len(X))
        found[language] = description_length(
            np.asarray(rows, np.float64), labels, items, frequency_logistic, classes=classes, orderings=ORDERINGS,
            shuffles=SHUFFLES, rng=stream(seed, "description", language),
        )  # fmt: skip
    return found
