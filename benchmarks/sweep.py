"""What 17 thresholds cost beside 1: published joint overlap, and pairwise overlap with all its statistics.

Times are CPU seconds, medians of interleaved rounds, so that a busy machine disturbs every arm alike.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from babelscope.analyses.joint import JointOverlap
from babelscope.analyses.metrics.nao import NeuronOverlap
from babelscope.analyses.pairs import score_pairs
from babelscope.analyses.statistics import resample

GRID = tuple(round(0.1 + 0.05 * i, 2) for i in range(17))


def planted(languages: int, items: int, units: int) -> np.ndarray:
    """SiLU of a shared and an own part, with a mean and a scale for each neuron, (language, item, unit)."""
    rng = np.random.default_rng(0)
    own = rng.standard_normal((languages, items, units), dtype=np.float32)
    shared = rng.standard_normal((1, items, units), dtype=np.float32)
    z = rng.normal(-0.6, 0.5, units) + (0.6 + 0.5 * rng.random(units)) * (0.7 * shared + 0.714 * own)
    return (z / (1 + np.exp(-z))).astype(np.float32)


def published_loop(x: np.ndarray, thresholds: tuple[float, ...]) -> list[float]:
    """The papers' way: one pass over the data for every threshold and item."""
    means = []
    for threshold in thresholds:
        ratios = []
        for item in range(x.shape[1]):
            active = np.abs(x[:, item]) > threshold
            size = active.sum(axis=1).mean()
            ratios.append(active.all(axis=0).sum() / size if size else 0.0)
        means.append(float(np.mean(ratios)))
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--languages", type=int, default=10)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--units", type=int, default=2048)
    parser.add_argument("--permutations", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    x = planted(options.languages, options.items, options.units)
    names = [f"l{k}" for k in range(options.languages)]
    permutations = resample(
        options.items, names, seed=0, group="all", n_boot=1, n_perm=options.permutations
    ).permutations
    true = np.broadcast_to(np.arange(options.items, dtype=np.int32), (1, options.languages, options.items))
    metric = NeuronOverlap()

    def joint(thresholds: tuple[float, ...]) -> list[float]:
        overlap = JointOverlap(thresholds)
        return overlap.per_layer(overlap.parts(x, true))[0].mean(axis=0).tolist()

    def pairwise(thresholds: tuple[float, ...]) -> None:
        score_pairs(x, metric.measures({"threshold": thresholds}), permutations)

    np.testing.assert_allclose(joint(GRID), published_loop(x, GRID), atol=1e-12)
    arms: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "published definition, loop per threshold": (
            lambda: published_loop(x, GRID[6:7]), lambda: published_loop(x, GRID),
        ),
        "published definition, one pass": (lambda: joint(GRID[6:7]), lambda: joint(GRID)),
        "all pairs with null and permutations": (lambda: pairwise(GRID[6:7]), lambda: pairwise(GRID)),
    }  # fmt: skip
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in arms}
    for _ in range(options.rounds):
        for name, calls in arms.items():
            for call, spent in zip(calls, times[name], strict=True):
                start = time.process_time()
                call()
                spent.append(time.process_time() - start)
    found = {
        name: {"one_s": statistics.median(one), "seventeen_s": statistics.median(many)}
        for name, (one, many) in times.items()
    }
    shape = {k: getattr(options, k) for k in ("languages", "items", "units", "permutations", "rounds")}
    if options.json:
        print(json.dumps({"shape": shape, "cpu": found}))
        return
    print(", ".join(f"{k} {v}" for k, v in shape.items()))
    print(f"{'one layer, CPU seconds':<44}{'1 threshold':>12}{'17':>9}{'ratio':>8}")
    for name, row in found.items():
        ratio = row["seventeen_s"] / row["one_s"]
        print(f"{name:<44}{row['one_s']:>12.4f}{row['seventeen_s']:>9.4f}{ratio:>8.1f}")


if __name__ == "__main__":
    main()
