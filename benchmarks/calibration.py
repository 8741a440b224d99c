"""False-positive rate and power of the statistics on planted data: nothing shared, or a part of every item.

Two kinds of data: items that differ in noise alone, and items of which some resemble everything (a common direction
of item-dependent strength), where a careless null goes wrong.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats

from babelscope.analyses.estimates import columns, joint_cells, mean_over_pairs, pair_cells
from babelscope.analyses.joint import JointOverlap, mismatched_draws
from babelscope.analyses.metrics.anc import UnitCorrelation
from babelscope.analyses.metrics.cka import DebiasedCka
from babelscope.analyses.metrics.cs import CosineSimilarity
from babelscope.analyses.metrics.mutual_knn import SharedNeighbors
from babelscope.analyses.metrics.nao import NeuronOverlap
from babelscope.analyses.metrics.rsa import RankedDistances
from babelscope.analyses.pairs import score_pairs
from babelscope.analyses.retrieval import Found, first_of_row_and_column
from babelscope.analyses.sets import set_cells
from babelscope.analyses.similarities.cosine import unit_rows
from babelscope.analyses.statistics import contrast, resample

ALPHA = 0.05
NULL_DRAWS = 60
COLUMNS = ("pair_p", "mean_p", "interval", "contrast", "coverage")
INTERVAL = ("gap", "gap_low", "gap_high")

SETS = {
    "cka": DebiasedCka(), "rsa": RankedDistances(), "anc, signed": UnitCorrelation(absolute=False),
    "anc, absolute": UnitCorrelation(), "mutual-knn": SharedNeighbors(5),
    "mexa": Found(unit_rows, first_of_row_and_column),
}  # fmt: skip


def planted(rng: np.random.Generator, shape: tuple[int, int, int], shared: float, common: float) -> np.ndarray:
    """(language, item, unit): an item's own part, a language's part, noise, and a direction common to all."""
    languages, items, units = shape
    meaning = shared * rng.normal(size=(1, items, units))
    tongue = rng.normal(size=(languages, 1, units))
    # How strongly each prompt points along the common direction is drawn for each language on its own.
    strength = common * np.abs(rng.normal(size=(languages, items, 1)))
    return meaning + tongue + strength * rng.normal(size=units) + rng.normal(size=shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--languages", type=int, default=4)
    parser.add_argument("--items", type=int, default=30)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    for common in (0.0, 2.0):
        for shared in (0.0, 0.2, 0.4):
            rows += simulate(rng, options, shared, common)
    if options.json:
        print(json.dumps({"alpha": ALPHA, "simulations": options.simulations, "rows": rows}))
        return
    low, high = stats.binom.interval(0.95, options.simulations, ALPHA)
    shape = f"{options.languages} languages x {options.items} items x {options.units} units"
    print(f"{options.simulations} simulations of {shape}")
    print(f"rejections at {ALPHA}; with shared = 0 luck alone gives {low / options.simulations:.3f} to "
          f"{high / options.simulations:.3f}")  # fmt: skip
    print(f"{'data':<12}{'shared':>7}  {'measure':<22}" + "".join(f"{name:>10}" for name in COLUMNS))
    for row in rows:
        values = "".join(f"{row[name]:>10.3f}" for name in COLUMNS)
        print(f"{row['data']:<12}{row['shared']:>7}  {row['measure']:<22}{values}")


def simulate(
    rng: np.random.Generator, options: argparse.Namespace, shared: float, common: float
) -> list[dict[str, object]]:
    """Rejection rates of each measure: one pair, mean over pairs, its interval, contrast with a group of nothing.

    And coverage: how often the interval of the mean over pairs holds the mean of that gap over all simulations.
    """
    names = [f"l{k}" for k in range(options.languages)]
    measures = [*CosineSimilarity().measures({}), *NeuronOverlap().measures({"threshold": (1.0,)})]
    labels = [m.variant for m in measures] + list(SETS) + ["overlap of all (paper)"]
    rejected = np.zeros((len(labels), 4))
    gaps, lows, highs = (np.zeros((options.simulations, len(labels))) for _ in range(3))
    for s in range(options.simulations):
        groups = []
        for group, strength in (("a", shared), ("b", 0.0)):
            x = planted(rng, (options.languages, options.items, options.units), strength, common)
            resamples = resample(options.items, names, seed=s, group=group, n_boot=200, n_perm=199)
            pairs = pair_cells(score_pairs(x, measures, resamples.permutations))
            sets = set_cells(x, list(SETS.values()), resamples.permutations)
            true = np.broadcast_to(np.arange(options.items, dtype=np.int32), (1, options.languages, options.items))
            wrong = mismatched_draws(options.items, options.languages, NULL_DRAWS, rng)
            draws = np.concatenate([true, wrong, resamples.permutations])
            overlap = JointOverlap((1.0,))
            joint = joint_cells(overlap.per_layer(overlap.parts(x, draws)), draws, NULL_DRAWS)
            means = [mean_over_pairs(pairs), mean_over_pairs(sets), joint]
            groups.append((means, [pairs, sets, None], resamples.weights))
        found, table = rejections(groups, rng)
        rejected += found
        gaps[s], lows[s], highs[s] = (np.concatenate([t[name][:, 0] for t in table]) for name in INTERVAL)
    covered = ((lows <= gaps.mean(axis=0)) & (gaps.mean(axis=0) <= highs)).mean(axis=0)
    rates = np.column_stack([rejected / options.simulations, covered])
    data = "common part" if common else "noise"
    return [
        {"data": data, "shared": shared, "measure": label} | dict(zip(COLUMNS, map(float, rate), strict=True))
        for label, rate in zip(labels, rates, strict=True)
    ]


def rejections(groups: list[tuple], rng: np.random.Generator) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """(measure, statistic), NaN where a measure has no single pair; and the tables of the means."""
    (means, firsts, weights), (other_means, _, other_weights) = groups
    found, tables = [], []
    for cells, other, first in zip(means, other_means, firsts, strict=True):
        table = columns(cells, weights, 0.95)
        outside = (table["gap_low"] > 0) | (table["gap_high"] < 0)
        one = (
            columns(first, weights, 0.95)["p"][:, :1] <= ALPHA if first is not None else np.full(outside.shape, np.nan)
        )
        between = contrast(
            cells.gap[:, 0], other.gap[:, 0], weights, other_weights, n_perm=199, level=0.95, rng=rng
        ).p[:, None] <= ALPHA  # fmt: skip
        found.append(np.concatenate([one, table["p"] <= ALPHA, outside, between], axis=1))
        tables.append(table)
    return np.concatenate(found).astype(float), tables


if __name__ == "__main__":
    main()
