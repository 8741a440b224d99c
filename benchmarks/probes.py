"""The grid of probes beside a plain loop of scikit-learn over the same arrays, measured side by side in one run.

12 layers, 10 languages, 5 folds: a probe in each language and layer, tested in all languages, with and without shuffled
labels. The loop is what one writes by hand: for every layer, language, fold (and shuffle) a pipeline of StandardScaler
and RidgeClassifierCV (or LogisticRegression), fitted and scored language by language. With shuffles it runs for some
of the layers and is scaled up, which the table says. Times are CPU seconds of one thread.

    python benchmarks/probes.py [--items 200] [--dim 512] [--permutations 99] [--loop-layers 1] [--json FILE]
"""

import argparse
import json
import time
import warnings
from statistics import median

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from babelscope.probes.folds import item_folds, shuffled_labels
from babelscope.probes.grid import Question, answered, balanced_accuracy
from babelscope.probes.probe import chosen_probe
from babelscope.probes.targets import Target

LAYERS, LANGUAGES, CLASSES, FOLDS = 12, 10, 4, 5


def planted(items, dim, rng):
    labels = np.tile(rng.permutation(np.arange(items) % CLASSES), (LANGUAGES, 1))
    means = rng.normal(size=(LAYERS, 1, CLASSES, dim)) + 0.5 * rng.normal(size=(LAYERS, LANGUAGES, CLASSES, dim))
    X = rng.normal(size=(LAYERS, LANGUAGES, items, dim)) * 4
    for layer in range(LAYERS):
        for k in range(LANGUAGES):
            X[layer, k] += means[layer, k][labels[k]]
    return X.astype(np.float32), labels


def grid(X, question, name):
    probe = chosen_probe(name)
    return np.stack([answered(x, question, probe, ["raw"])[0].predicted for x in X])


def loop(X, question, make):
    """Balanced accuracy (layer, language of the fit, language of the test), and the same for every shuffle."""
    labelings = question.labelings
    scores = np.zeros((len(X), len(labelings), LANGUAGES, LANGUAGES))
    for layer, x in enumerate(X):
        for b, labels in enumerate(labelings):
            for a in range(LANGUAGES):
                predicted = np.empty((LANGUAGES, x.shape[1]), dtype=int)
                for fold in range(FOLDS):
                    test = question.folds == fold
                    model = make().fit(x[a][~test], labels[a][~test])
                    for k in range(LANGUAGES):
                        predicted[k, test] = model.predict(x[k][test])
                scores[layer, b, a] = [balanced_accuracy(predicted[k], labels[k], CLASSES) for k in range(LANGUAGES)]
    return scores


def timed(work, repeats):
    seconds, found = [], None
    for _ in range(repeats):
        start = time.process_time()
        found = work()
        seconds.append(time.process_time() - start)
    return median(seconds), found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--permutations", type=int, default=99)
    parser.add_argument("--loop-layers", type=int, default=1, help="layers that the loop runs with shuffles")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    X, labels = planted(asked.items, asked.dim, rng)
    target = Target("label", "item", tuple("abcd"), labels)
    folds = item_folds(np.arange(asked.items), labels[0], FOLDS, 0)
    unknown = np.zeros(asked.items, dtype=bool)
    nothing = np.empty((0, *labels.shape), dtype=np.int64)
    shuffled = shuffled_labels(labels, np.arange(asked.items), asked.permutations, rng, of_items=True)
    languages = tuple(f"l{k}" for k in range(LANGUAGES))
    plain, full = (
        Question(target, languages, folds, np.arange(asked.items), s, nothing, unknown, nothing)
        for s in (nothing, shuffled)
    )
    alphas = tuple(10.0 ** np.arange(-3, 3) * asked.dim)
    makers = {
        "ridge": lambda: make_pipeline(StandardScaler(), RidgeClassifierCV(alphas)),
        "logistic": lambda: make_pipeline(
            StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
        ),
    }
    rows = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make in makers.items():
            ours, theirs = [], []
            for _ in range(asked.repeats):
                seconds, found = timed(lambda name=name: grid(X, plain, name), 1)
                ours.append(seconds)
                seconds, scores = timed(lambda make=make: loop(X, plain, make), 1)
                theirs.append(seconds)
            mine = np.array([[[balanced_accuracy(p[b], labels[b], CLASSES) for b in range(LANGUAGES)] for p in layer]
                             for layer in found])  # fmt: skip
            rows.append({"probe": name, "shuffles": 0, "grid_s": median(ours), "loop_s": median(theirs),
                         "about": f"mean score {mine.mean():.3f} / {scores[:, 0].mean():.3f}"})  # fmt: skip
        seconds, _ = timed(lambda: grid(X, full, "ridge"), 1)
        part = asked.loop_layers
        slow, _ = timed(lambda: loop(X[:part], full, makers["ridge"]), 1)
        rows.append({"probe": "ridge", "shuffles": asked.permutations, "grid_s": seconds,
                     "loop_s": slow * LAYERS / part, "about": f"loop: {part} of {LAYERS} layers, scaled"})  # fmt: skip
    print(f"{LAYERS} layers x {LANGUAGES} languages, {asked.items} items, {asked.dim} dimensions, {FOLDS} folds")
    for row in rows:
        row["ratio"] = row["loop_s"] / row["grid_s"]
        print(
            f"{row['probe']:<9} {row['shuffles']:>3} shuffles: grid {row['grid_s']:8.1f} s loop {row['loop_s']:7.1f} s "
            f"ratio {row['ratio']:6.1f}   {row['about']}"
        )
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
