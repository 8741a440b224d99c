"""Prediction beside what is known of the items anyway: length, and words that two languages share."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from babelscope.analyses.statistics import MIN_ITEMS, Floats, mean_of_defined, share
from babelscope.datasets.text_units import words
from babelscope.schema import PromptSet

# A log-odds of this size for one standard deviation is a separation that no fit can bound.
HIGHEST = 15.0


@dataclass(frozen=True, slots=True)
class LogOdds:
    """Change of the log-odds of being right for one standard deviation of a value, others held."""

    estimate: float
    low: float
    high: float
    p: float
    n_items: int
    n_answers: int


UNDEFINED = LogOdds(np.nan, np.nan, np.nan, np.nan, 0, 0)


def log_odds(values: Floats, outcome: Floats, covariates: Floats, *, level: float = 0.95) -> LogOdds:
    """Logistic regression of outcomes on values and covariates, with an intercept for every language.

    Values and covariates are standardized within each language, so that only differences between items count. Errors
    are clustered by item (Liang and Zeger 1986, Biometrika 73, 13-22), with Student's t of items - 1.

    Parameters
    ----------
    values, outcome : ndarray
        (language, item); outcomes are 1, 0, or NaN where unknown. Languages with fewer than four right or four wrong
        items do not count.
    covariates : ndarray
        (covariate, language, item). One that does not vary is left out.

    Returns
    -------
    LogOdds
        NaN where right and wrong items are separated, or too few to fit.
    """
    counts = ~np.isnan(values) & ~np.isnan(outcome) & ~np.isnan(covariates).any(axis=0)
    sides = [np.count_nonzero(counts & (outcome == side), axis=1) >= MIN_ITEMS for side in (0, 1)]
    counts &= (sides[0] & sides[1])[:, None]
    languages, items = np.nonzero(counts)
    columns = [_standardized(x, counts)[counts] for x in (values, *covariates)]
    if not len(items) or not columns[0].any():
        return UNDEFINED
    kept = [columns[0], *(c for c in columns[1:] if c.any())]
    design = np.column_stack([*kept, *(np.where(languages == k, 1.0, 0.0) for k in np.unique(languages))])
    n_items = len(np.unique(items))
    if np.linalg.matrix_rank(design) < design.shape[1] or design.shape[1] >= n_items:
        return UNDEFINED
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = GLM(outcome[counts], design, family=Binomial()).fit(cov_type="cluster", cov_kwds={"groups": items})
    beta, error = float(fit.params[0]), float(fit.bse[0])
    if caught or not np.isfinite([beta, error]).all() or np.abs(fit.params).max() > HIGHEST or error == 0:
        return UNDEFINED
    t = stats.t(n_items - 1)
    half = float(t.ppf((1 + level) / 2)) * error
    return LogOdds(beta, beta - half, beta + half, float(2 * t.sf(abs(beta) / error)), n_items, len(items))


def _standardized(x: Floats, counts: NDArray[np.bool_]) -> Floats:
    kept = np.where(counts, x, np.nan)
    centered = kept - mean_of_defined(kept)[:, None]
    deviation = np.sqrt(mean_of_defined(centered**2))[:, None]
    scaled = share(centered, np.where(deviation <= 1e-9 * np.abs(kept), 0.0, deviation))
    return np.where(np.isnan(scaled), 0.0, scaled)


def lexical_covariates(prompts: PromptSet, source: str, n_tokens: Mapping[tuple[str, str], int]) -> Floats:
    """What is known of items before any model ran: (covariate, language, item), of `LEXICAL`.

    The logarithm of the number of tokens, and the share of words that the prompt has in common with the same item in
    the source (Jaccard of the sets of words).

    Parameters
    ----------
    n_tokens : mapping
        (language, item) -> tokens of the prompt.
    """
    known = {(p.language, p.item): set(words(p.text)) for p in prompts.prompts}
    found = np.full((2, len(prompts.languages), len(prompts.items)), np.nan)
    for k, language in enumerate(prompts.languages):
        for i, item in enumerate(prompts.items):
            own, other = known[language, item], known[source, item]
            found[0, k, i] = np.log(n_tokens[language, item])
            found[1, k, i] = len(own & other) / max(1, len(own | other))
    return found


LEXICAL = ("length in tokens", "words shared with the source")
