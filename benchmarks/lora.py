"""What the preset small-lora-knowledge does to the embedded decoder: accuracy and XLTR before and after, item by item.

Questions for atomic numbers of the test split, six draws of other options for each fact; intervals take questions for
independent, which those about one fact are not. docs/training.md quotes the numbers.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import babelscope as bs
from babelscope.schema import PromptSet

DRAWS = 6


def questions() -> PromptSet:
    """The questions in all fourteen languages."""
    found = [
        replace(p, item=f"{p.item}-s{seed}")
        for seed in range(DRAWS)
        for p in bs.generate("knowledge", items=256, seed=seed).prompts
        if p.covariates["rule"] == "atomic_number"
    ]
    return PromptSet("atomic numbers", tuple(found))


def main() -> None:
    """Train, capture and print."""
    with tempfile.TemporaryDirectory() as name:
        folder, asked = Path(name), questions()
        tuned = bs.train("small-lora-knowledge", folder / "tuned")
        stores = {}
        for when, model in (("before", "organism"), ("after", str(tuned))):
            stores[when] = folder / f"{when}.acts"
            store = bs.capture(stores[when], model=model, prompts=asked, sites=["resid.post"])
            print(f"{when}\n{bs.evaluate(store, source='en', mode='corrected').summary()}\n")
        print(bs.compare(stores, ["cs"], mode="corrected").summary())


if __name__ == "__main__":
    main()
