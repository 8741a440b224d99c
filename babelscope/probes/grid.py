"""One layer asked one question: a probe fitted in each language and tested in all, on items that it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from babelscope.errors import BabelScopeError
from babelscope.probes.probe import Codes, Floats, Probe
from babelscope.probes.targets import Target
from babelscope.probes.variants import Variant, transformed

# A probe sees at most so many rows, those of items drawn at random: a decomposition costs their cube.
MOST_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every layer, with the folds and shuffled labels that all layers share.

    Parameters
    ----------
    target : Target
        With a label for every row.
    languages : tuple of str
    folds : ndarray of int64
        (item,): fold in which an item is tested.
    groups : ndarray of int64
        (item,): items that belong together, which are never split and count as one for p and intervals.
    shuffled : ndarray of int64
        (permutation, language, item).
    controls : ndarray of int64
        (labeling, language, item): random labels per type of items, the same in all languages; or none.
    comes_back : ndarray of bool
        (item,): whether items of the same type are in other folds, so that their label can be known.
    recognized : ndarray of int64
        (labeling, language, item): a random label of each item, asked for on the items that the probe was fitted on; or
        none.
    halves : tuple of str
        Variants that take what they take from the rows from one half of the items, while the probe is fitted on the
        other. Language that was erased from the very rows that a probe is fitted on is hidden from it by construction;
        whether it can be found again, only other items tell.
    """

    target: Target
    languages: tuple[str, ...]
    folds: Codes
    groups: Codes
    shuffled: Codes
    controls: Codes
    comes_back: NDArray[np.bool_]
    recognized: Codes
    halves: tuple[Variant, ...] = ()

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Languages (language,) with as many items of every class as there are folds, some to be fitted in each."""
        codes, folds = self.target.codes, np.unique(self.folds)
        fewest = np.full(len(codes), len(self.folds))
        in_training = np.ones(len(codes), dtype=bool)
        for k in range(len(self.target.classes)):
            of_class = codes == k
            fewest = np.minimum(fewest, of_class.sum(axis=1))
            for fold in folds:
                in_training &= of_class[:, self.folds != fold].any(axis=1)
        return np.asarray((fewest >= len(folds)) & in_training)

    @property
    def trained(self) -> tuple[str, ...]:
        """Languages that a probe is fitted in: each, or "*", all at once, where labels tell languages apart."""
        return ("*",) if self.target.scope == "language" else self.languages

    @property
    def labelings(self) -> Codes:
        """The labels, the shuffled ones and the controls, (labeling, language, item)."""
        return np.concatenate([self.target.codes[None], self.shuffled, self.controls])


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a question at one site, layer and position.

    Parameters
    ----------
    variant : str
        "raw", "centered" (each language about its own mean) or "erased" (language erased).
    predicted : ndarray of int64
        (trained in, language, item): predicted class of each item in the fold in which it is tested.
    shuffled : ndarray of float64
        (trained in, language, permutation): score with shuffled labels, fitted and tested with them.
    shuffled_all : ndarray of float64
        (trained in, permutation): the same over the rows of all languages at once.
    control : ndarray of float64
        (trained in, language, item): credit for control labels, with balanced accuracy as mean; NaN without.
    recognized : ndarray of float64
        (trained in, language, item): the same for labels of items that the probe was fitted on; NaN in the language of
        the fit itself, where a probe repeats what it was shown.
    """

    variant: str
    predicted: Codes
    shuffled: Floats
    shuffled_all: Floats
    control: Floats
    recognized: Floats


def balanced_accuracy(predicted: Codes, labels: Codes, n_classes: int, weights: Floats | None = None) -> Floats:
    """Mean over classes of the share of their rows that is predicted right; chance is 1 / classes.

    Parameters
    ----------
    predicted, labels : ndarray of int64
        (..., row), broadcast.
    n_classes : int
    weights : ndarray of float64, optional
        (resample, row): how often a row counts. Then the result has a last axis of resamples.

    Returns
    -------
    ndarray of float64
        (...) or (..., resample); NaN where a class has no row.
    """
    right = predicted == labels
    found = []
    for k in range(n_classes):
        of_class = np.broadcast_to(labels == k, right.shape)
        if weights is None:
            hits, total = (right & of_class).sum(axis=-1), of_class.sum(axis=-1)
        else:
            hits, total = (x.astype(np.float64) @ weights.T for x in (right & of_class, of_class))
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(np.true_divide(hits, total))
    mean: Floats = np.mean(found, axis=0)
    return mean


def answered(X: NDArray[np.generic], question: Question, probe: Probe, variants: Sequence[Variant]) -> list[Answered]:
    """A question put to one layer.

    Parameters
    ----------
    X : ndarray
        (language, item, dim).
    question : Question
    probe : Probe
    variants : sequence of str
        Of `variants.VARIANTS`. What a variant takes from the rows (means, what to erase) is taken from the items that
        the probe is fitted on, in the languages that it is tested in as well, but no label is.

    Raises
    ------
    BabelScopeError
        If a value is not finite.
    """
    values = np.asarray(X, dtype=np.float64)
    if not np.isfinite(values).all():
        raise BabelScopeError(
            "activations hold values that are not finite, which no probe can be fitted to",
            "--marked drop leaves their items out; or capture with --store-dtype float32",
        )
    with threadpool_limits(1):  # layers run side by side, and many small fits: threads would only wait
        return [_one_variant(values, question, probe, variant) for variant in variants]


def _one_variant(X: Floats, question: Question, probe: Probe, variant: Variant) -> Answered:
    labelings, trained = question.labelings, question.trained
    n_languages, n_items = question.target.codes.shape
    found = np.full((len(trained), len(labelings), n_languages, n_items), -1, dtype=np.int16)
    credit, asked = np.zeros((len(trained), n_languages, n_items)), np.zeros((len(trained), 1, n_items))
    for fold in np.unique(question.folds):
        tested = question.folds == fold
        fitted_on = taken_from = ~tested
        if variant in question.halves:
            taken_from, fitted_on = _halves(fitted_on, question.groups)
        rows = transformed(X, taken_from, variant)
        for a in range(len(trained)):
            languages = np.arange(n_languages) if trained == ("*",) else np.array([a])
            fit = _Fit(rows, languages, fitted_on, probe, len(question.target.classes))
            found[a][:, :, tested] = fit.predictions(labelings, tested)
            if len(question.recognized):
                seen = np.isin(np.arange(n_items), fit.items)
                labels = question.recognized[:, :, seen]
                credit[a][:, seen] += _credit(fit.predictions(question.recognized, seen), labels)
                asked[a][:, seen] += 1
    recognized = credit / np.where(asked > 0, asked, np.nan)
    if question.target.scope != "language":
        recognized[range(len(trained)), range(len(trained))] = np.nan
    return _summed_up(variant, question, found, recognized)


def _credit(predicted: NDArray[Any], labels: Codes) -> Floats:
    """Credit of every row, (language, item), of a mean that is balanced accuracy, averaged over the labelings.

    Parameters
    ----------
    predicted, labels : ndarray
        (labeling, language, item).
    """
    found = np.zeros(labels.shape[1:])
    for said, row in zip(predicted, labels, strict=True):
        for language, codes in enumerate(row):
            sizes = np.bincount(codes)
            weights = len(codes) / (np.count_nonzero(sizes) * np.maximum(sizes, 1))
            found[language] += (said[language] == codes) * weights[codes]
    return found / len(labels)


def _summed_up(variant: Variant, question: Question, found: NDArray[np.int16], recognized: Floats) -> Answered:
    """Scores of the shuffled labels, and credit of the control labels."""
    n_classes, n_shuffled = len(question.target.classes), len(question.shuffled)
    predicted, labels = found[:, 1 : 1 + n_shuffled].astype(np.int64), question.shuffled
    if question.target.scope == "language":
        by_language = (predicted == labels).mean(axis=-1)  # a language is one class: its rows are right or not
    else:
        by_language = balanced_accuracy(predicted, labels, n_classes)
    size = labels.shape[1] * labels.shape[2]
    together = balanced_accuracy(
        predicted.reshape(*predicted.shape[:2], size), labels.reshape(len(labels), size), n_classes
    )
    control = np.full_like(recognized, np.nan)
    if len(question.controls):
        at = question.comes_back
        for a, said in enumerate(found[:, 1 + n_shuffled :]):
            control[a][:, at] = _credit(said[:, :, at], question.controls[:, :, at])
    if not len(question.recognized):
        recognized = np.full_like(recognized, np.nan)
    own = found[:, 0].astype(np.int64)
    return Answered(variant, own, by_language.transpose(0, 2, 1), together, control, recognized)


class _Fit:
    """Rows of some languages and items that a probe is fitted to, and how it sees other rows."""

    def __init__(
        self, rows: Floats, languages: Codes, fitted_on: NDArray[np.bool_], probe: Probe, n_classes: int
    ) -> None:
        self._languages, self.items = languages, _drawn(np.flatnonzero(fitted_on), MOST_ROWS // len(languages))
        self._rows, self._probe, self._n_classes = rows, probe, n_classes
        train = rows[languages][:, self.items].reshape(-1, rows.shape[-1])
        self._mean, self._scale = standards(train)
        self._train = (train - self._mean) / self._scale
        self._basis = basis_of(self._train, probe)
        if self._basis is not None:
            self._train = self._train @ self._basis

    def predictions(self, labelings: Codes, items: NDArray[np.bool_]) -> Codes:
        """Predicted class of every row of some items after a fit to each labeling, (labeling, language, item)."""
        asked = self._rows[:, items]
        tests = (asked.reshape(-1, asked.shape[-1]) - self._mean) / self._scale
        if self._basis is not None:
            tests = tests @ self._basis
        labels = labelings[:, self._languages][:, :, self.items].reshape(len(labelings), -1)
        predicted = self._probe.predictions(self._train, labels, self._n_classes, tests)
        return predicted.reshape(len(labelings), *asked.shape[:2])


def basis_of(train: Floats, probe: Probe) -> Floats | None:
    """Orthonormal basis (dim, row) of standardized training rows, for a probe that gains from it; else None."""
    if not probe.info.rotates or train.shape[1] <= len(train):
        return None
    return np.asarray(np.linalg.qr(train.T)[0], np.float64)


def standards(train: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of each dimension (dim,); 1 for a dimension that does not vary."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    return mean, np.where(deviation > 1e-12 * np.maximum(1.0, np.abs(mean)), deviation, 1.0)


def _drawn(places: Codes, most: int) -> Codes:
    """At most so many of the places, drawn once and for all: the same in all layers."""
    if len(places) <= most:
        return places
    return np.sort(np.random.default_rng(0).permutation(places)[: max(most, 1)])


def _halves(fitted_on: NDArray[np.bool_], groups: Codes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """One half of the groups of some items, and the rest."""
    names = np.random.default_rng(0).permutation(np.unique(groups[fitted_on]))
    first = fitted_on & np.isin(groups, names[::2])
    return first, fitted_on & ~first
