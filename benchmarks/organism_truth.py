"""Whether the metrics see in which languages the embedded decoder was taught what: contrasts of groups of facts.

Facts about people who do not exist were taught in all languages (shared), in one language each, or in one half of the
languages (halves-a, halves-b): `truth.json` of the model. Knowing this, `shared` should lie above `one-language`, and
among the languages of a half the facts taught in them above those taught in the others.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd

import babelscope as bs
from babelscope.training.organism import TAUGHT_IN

OF_NEURONS = ["nao", "nao-kappa", "neuron-states", "neuronxa"]
OF_VECTORS = ["cs", "cka", "rsa", "anc", "mutual-knn", "mexa", "retrieval"]
METRICS = [*OF_NEURONS, *OF_VECTORS, "attention-stability"]
SITES = ["resid.post", "mlp.act", "attn.mass"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", nargs="+", default=METRICS)
    options = parser.parse_args()
    contrasts = [
        ("all", None, "shared", "one-language"),
        ("half a", TAUGHT_IN["halves-a"], "halves-a", "halves-b"),
        ("half b", TAUGHT_IN["halves-b"], "halves-b", "halves-a"),
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for prompts in ("fictional-authors-bare", "fictional-authors"):
            store = bs.capture(
                Path(folder) / f"{prompts}.acts", model="organism", prompts=prompts, sites=SITES, self_test=False
            )
            for name, languages, more, less in contrasts:
                for metric in options.metrics:
                    if metric == "attention-stability" and prompts.endswith("bare"):
                        continue  # one segment has no shares of attention
                    site = "mlp.act" if metric in OF_NEURONS else "resid.post"
                    found = bs.analyze(
                        store, metric, by="group", within="rule", mode="corrected", languages=languages, jobs=2,
                        sites=["attn.mass" if metric == "attention-stability" else site],
                    )  # fmt: skip
                    table = found["contrast"].table
                    table = table[table["layer"].isna() & table["group_a"].isin([more, less])]
                    for row in table[table["group_b"].isin([more, less])].to_dict("records"):
                        sign = 1 if row["group_a"] == more else -1
                        low, high = sorted((sign * row["low"], sign * row["high"]))
                        rows.append(
                            (prompts.removeprefix("fictional-authors") or "-options", name, f"{more} - {less}", metric,
                             row["variant"], row["n_a"] + row["n_b"], sign * row["estimate"], low, high, row["q"])
                        )  # fmt: skip
    columns = ["prompts", "languages", "contrast", "metric", "variant", "n", "estimate", "low", "high", "q"]
    print(pd.DataFrame(rows, columns=columns).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
