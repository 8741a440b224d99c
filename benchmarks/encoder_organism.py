"""The numbers of the encoder organism's card: what it answers in every cell of its truth table, and what recovers it.

Similarities are measured at the masked answer, which the model has to fill from what it knows, of the same fact or
theory in two languages against others of its family. A metric recovers the table where what was taught in all languages
has a higher gap than what was taught in one or in none.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import AutoModelForMaskedLM, AutoTokenizer

import babelscope as bs
from babelscope.datasets.facts import facts
from babelscope.schema import Prompt, PromptSet, Segment
from babelscope.training.encoder_accuracy import recall_table
from babelscope.training.encoder_corpus import HALVES, Passage, fact_passage, statements
from babelscope.training.truth import Family, TruthTable, read_truth
from babelscope.workflows import model_path

CODE_SWITCHED = ("en-fr", "fr-en", "en-zh", "en-fa", "fa-en")
THEORIES = 60


def prompts(table: TruthTable) -> Iterator[Prompt]:
    """Every fact, and some theories of every kind of reasoning, in every language, with a masked answer."""
    for language in table.languages:
        for family in table.families:
            if family.kind == "facts":
                asked = [fact_passage(f, language) for f in facts() if f.relation == family.name]
            else:
                # The same random numbers give the same theories in every language.
                asked = statements(family.name, [language], THEORIES, np.random.default_rng(0), "test")
            for number, passage in enumerate(asked):
                question = " [SEP] ".join(part for part in (passage.first, passage.second) if part)
                text, end = f"{question} [MASK]", len(question)
                yield Prompt(
                    f"{family.name}/{number}", language, text,
                    (Segment("question", 0, end, language), Segment("answer", end + 1, len(text), language)),
                    answer=passage.answer,
                    covariates=covariates(family, passage),
                )  # fmt: skip


def covariates(family: Family, passage: Passage) -> dict[str, str]:
    """Family and cell; for facts taught in halves also the half, in the order of `HALVES`."""
    found = {"family": family.name, "label": str(passage.label), "cell": f"{family.kind} {family.sharing}"}
    if family.sharing == "halves":
        found["half"] = "first half" if passage.item in family.items[HALVES[0][0]] else "second half"
    return found


def markdown(frame: pd.DataFrame) -> str:
    """A table for the card."""
    lines = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="encoder-organism")
    parser.add_argument("-n", type=int, default=400, help="statements in each cell")
    arguments = parser.parse_args()
    folder = Path(model_path(arguments.model))
    table = read_truth(folder)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    found = recall_table(model, tokenizer, table, n=arguments.n)
    switched = recall_table(model, tokenizer, table, n=arguments.n, languages=CODE_SWITCHED)
    for name, part in (("cells", found), ("code-switched", switched)):
        shown = part.assign(
            value=[
                f"{a:.3f} [{lo:.3f}, {hi:.3f}]" for a, lo, hi in zip(part.accuracy, part.low, part.high, strict=True)
            ]
        )
        print(f"\n## {name}\n")
        for kind, rows in shown.groupby("kind"):
            columns = ["family", "sharing", "taught", "n", "chance"] if kind == "facts" else ["family", "n"]
            columns = ["language", *columns]
            print(markdown(rows.assign(chance=rows.chance.round(3))[[*columns, "value"]]), "\n")
    with tempfile.TemporaryDirectory() as work:
        store = bs.capture(
            Path(work) / "run.acts", model=str(folder), prompts=PromptSet("truth", tuple(prompts(table))),
            sites=["resid.post", "mlp.act"], positions=["segment:answer"],
        )  # fmt: skip
        for by, languages in (("cell", table.languages), *(("half", codes) for codes in HALVES)):
            done = bs.analyze(
                store, by=by, within=("family", "label"), languages=languages, position="segment:answer",
                mode="corrected",
            )  # fmt: skip
            print(f"\n## similarity by {by}, languages {' '.join(languages)}\n")
            print(markdown(done.headline().round(4)))


if __name__ == "__main__":
    main()
