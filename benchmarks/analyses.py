"""What the analyses cost beside the papers' loops, a second threshold, and reading the data once.

Times are CPU seconds of one thread, medians of interleaved rounds, so that a busy machine disturbs every arm alike. One
layer is measured; layers are independent and stream. Peak memory is that of fresh processes over stores of 2 and 16
layers.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.analyses import analyze
from babelscope.analyses.joint import JointOverlap
from babelscope.analyses.metrics.cka import DebiasedCka
from babelscope.analyses.metrics.cs import CosineSimilarity
from babelscope.analyses.metrics.nao import NeuronOverlap
from babelscope.analyses.pairs import score_pairs
from babelscope.analyses.similarities.cosine import Cosine
from babelscope.analyses.stacks import similarity_stack
from babelscope.analyses.statistics import resample
from babelscope.schema import Block, CapturePlan, ModelRef, Position, Prompt, PromptSet, Rows, expand_sites

GRID = tuple(round(0.1 + 0.05 * i, 2) for i in range(17))
FINE = tuple(round(0.1 + 0.005 * i, 3) for i in range(161))


def planted(languages: int, items: int, units: int) -> np.ndarray:
    """SiLU of a shared and an own part, with a mean and a scale for each neuron, (language, item, unit)."""
    rng = np.random.default_rng(0)
    own = rng.standard_normal((languages, items, units), dtype=np.float32)
    shared = rng.standard_normal((1, items, units), dtype=np.float32)
    z = rng.normal(-0.6, 0.5, units) + (0.6 + 0.5 * rng.random(units)) * (0.7 * shared + 0.714 * own)
    return (z / (1 + np.exp(-z))).astype(np.float16)


def overlap_loop(x: np.ndarray, thresholds: tuple[float, ...]) -> list[float]:
    """The papers' way: one pass over the data for every threshold and item."""
    means = []
    for threshold in thresholds:
        ratios = []
        for item in range(x.shape[1]):
            active = np.abs(x[:, item].astype(np.float32)) > threshold
            size = active.sum(axis=1).mean()
            ratios.append(active.all(axis=0).sum() / size if size else 0.0)
        means.append(float(np.mean(ratios)))
    return means


def cosine_loop(x: np.ndarray) -> float:
    """The papers' way: every item and every ordered pair of languages by itself."""
    values = []
    for item in range(x.shape[1]):
        rows = x[:, item].astype(np.float32)
        for a in range(len(rows)):
            for b in range(len(rows)):
                if a != b:
                    values.append(rows[a] @ rows[b] / (np.linalg.norm(rows[a]) * np.linalg.norm(rows[b])))
    return float(np.mean(values))


def arms(x: np.ndarray, permutations: np.ndarray) -> dict[str, Callable[[], object]]:
    true = np.broadcast_to(np.arange(x.shape[1], dtype=np.int32), (1, *x.shape[:2]))
    languages = range(len(x) - 1)

    def joint(thresholds: tuple[float, ...]) -> list[float]:
        overlap = JointOverlap(thresholds)
        return overlap.per_layer(overlap.parts(x, true))[0].mean(axis=0).tolist()

    def matched_pairs() -> float:
        """Matched items of all pairs, which is what the loop gives: the diagonal of one product per item."""
        rows = x.transpose(1, 0, 2).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=2, keepdims=True)
        gram = rows @ rows.transpose(0, 2, 1)
        return float(gram[:, *np.triu_indices(len(x), 1)].mean())

    def every_item(measures: tuple) -> None:
        stack = similarity_stack(x, [m.similarity for m in measures])
        for a in languages:
            stack(a, slice(a + 1, len(x)))

    def cka() -> None:
        grams = [DebiasedCka().prepare(rows) for rows in x]
        for a in languages:
            for b in range(a + 1, len(x)):
                DebiasedCka().compare(grams[a], grams[b])

    np.testing.assert_allclose(joint(GRID), overlap_loop(x, GRID), atol=1e-12)
    np.testing.assert_allclose(matched_pairs(), cosine_loop(x), atol=1e-5)
    cosine, overlap = CosineSimilarity().measures({})[:1], NeuronOverlap().measures({"threshold": GRID})
    assert isinstance(cosine[0].similarity, Cosine)
    return {
        "read once (sum)": lambda: x.astype(np.float32).sum(),
        "overlap of all languages, papers' loop, 17 thresholds": lambda: overlap_loop(x, GRID),
        "overlap of all languages, 17 thresholds": lambda: joint(GRID),
        "overlap of all languages, 161 thresholds": lambda: joint(FINE),
        "cosine of matched items, all pairs, papers' loop": lambda: cosine_loop(x),
        "cosine of matched items, all pairs": matched_pairs,
        "cosine of all items, all pairs": lambda: every_item(cosine),
        "overlap of all items, all pairs, 17 thresholds": lambda: every_item(overlap),
        "cka of all pairs, with values without each item": cka,
        "cs + nao sweep + permutations, all statistics": lambda: score_pairs(x, [*cosine, *overlap], permutations),
    }


def store_of(path: Path, layers: int, items: int, units: int) -> ActivationStore:
    """A store of noise, in three languages."""
    rng, languages = np.random.default_rng(0), ("en", "de", "sw")
    names = tuple(f"q{i:04d}" for i in range(items))
    prompts = PromptSet("noise", tuple(Prompt(i, g, f"{i} {g}") for g in languages for i in names))
    model = ModelRef("noise", "Noise", layers, "float32", "0" * 64, "0" * 64)
    sites, last = expand_sites([f"mlp.act@0:{layers}"], layers), Position("last")
    plan = CapturePlan(
        model, prompts.digest(), languages, names, sites, (last,), False, "torch", items, 4096, "float32"
    )
    with StoreWriter.create(path, plan, prompts, {}) as writer:
        for language in languages:
            rows = {("mlp.act", last): Rows(rng.standard_normal((layers, items, units), dtype=np.float32))}
            writer.put(Block(language, 0, np.arange(items), rows, np.ones(items, dtype=np.int64), ("x",) * items))
    return ActivationStore.open(path)


def peak_mb(path: str) -> float:
    """Growth of the peak resident size over one analysis, in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    analyze(ActivationStore.open(path), ["nao", "cka"], sweep={"threshold": GRID}, n_perm=199, n_boot=200)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def memory(items: int, units: int) -> dict[str, float]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for layers in (2, 16):
            path = Path(folder) / f"{layers}.acts"
            store_of(path, layers, items, units)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[f"{layers} layers"] = pool.apply(peak_mb, (str(path),))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", type=int, default=10)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--units", type=int, default=4096)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    x = planted(options.languages, options.items, options.units)
    names = [f"l{k}" for k in range(options.languages)]
    n_perm = options.permutations
    permutations = resample(options.items, names, seed=0, group="all", n_boot=1, n_perm=n_perm).permutations
    calls = arms(x, permutations)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    cpu = {name: statistics.median(spent) for name, spent in times.items()}
    found = {"shape": vars(options), "cpu_s": cpu, "peak_mb": memory(200, 1024)}
    if options.json:
        print(json.dumps(found))
        return
    print(", ".join(f"{k} {v}" for k, v in vars(options).items()))
    for name, spent in cpu.items():
        print(f"{name:<56}{spent:>9.3f} s{1e9 * spent / x.size:>9.2f} ns per element")
    for name, grown in found["peak_mb"].items():
        print(f"peak memory, {name:<43}{grown:>9.1f} MB")


if __name__ == "__main__":
    main()
