"""Whether the barrier of mixed-language questions is where the embedded decoder was taught one: `truth.json`.

Facts about people who do not exist were taught in all languages (`shared`), in English alone (`one-language`), or in
one half of the languages (`halves-a`, which has English, and `halves-b`). Each is asked in English, wholly in another
language, and in every mixed setting, in an English shell. `full` should then cost nothing for `shared`, cost what is
known for `one-language`, cost for `halves-a` in the languages of half b alone, and cost nothing for `halves-b` in them.
Four minutes on one core.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

import babelscope as bs
from babelscope.analyses.behavior.barrier import barrier
from babelscope.analyses.behavior.foreign_pull import foreign_pull
from babelscope.analyses.behavior.scorings import SCORINGS
from babelscope.schema import Prompt, PromptSet, Segment
from babelscope.training.organism import TAUGHT_IN

KINDS = ("full", "question", "options", "gt", "gt_question", "onewrong", "threewrong")
SHOWN = ("group", "setting", "n", "accuracy", "low", "high", "gap_en", "gap_en_low", "gap_en_high", "q", "verdict",
         "gap_mono", "gap_mono_low", "gap_mono_high", "q_mono", "verdict_mono")  # fmt: skip
PULL = ("group", "setting", "n", "chosen", "null_uniform", "null_base", "pull", "pull_low", "pull_high", "q", "verdict")


def composed(cells: Sequence[Prompt], shell: Prompt, code: str) -> Prompt:
    """A prompt in the shell of one, with the question and the options each from another."""
    text, segments = "", []

    def add(name: str, part: str, language: str) -> None:
        nonlocal text
        if name:
            segments.append(Segment(name, len(text), len(text) + len(part), language))
        text += part

    add("instruction", shell.segment("instruction"), shell.language)
    add("", "\n", shell.language)
    add("question", cells[0].segment("question"), cells[0].language)
    for i, (letter, cell) in enumerate(zip(shell.letters, cells[1:], strict=True)):
        add("", f"\n{letter}) ", shell.language)
        add(f"option-{i + 1}", cell.options[i], cell.language)
    add("", "\n", shell.language)
    add("cue", shell.segment("cue"), shell.language)
    options = tuple(cell.options[i] for i, cell in enumerate(cells[1:]))
    return Prompt(
        shell.item, code, text, tuple(segments), shell.letters, options, shell.gold, options[shell.gold],
        shell.covariates,
    )  # fmt: skip


def foreign_cells(kind: str, gold: int, rng: np.random.Generator) -> set[int]:
    """Which cells of an item are in the other language: 0 the question, then the options."""
    wrong = [i for i in range(1, 5) if i != gold + 1]
    return {
        "full": {0, 1, 2, 3, 4}, "question": {0}, "options": {1, 2, 3, 4}, "gt": {gold + 1},
        "gt_question": {0, gold + 1}, "onewrong": {int(rng.choice(wrong))}, "threewrong": set(wrong),
    }[kind]  # fmt: skip


def mixed(languages: Sequence[str]) -> Iterator[Prompt]:
    """Every setting of every fact; mixup draws five of English and the languages for each item."""
    asked = bs.generate("fictional-authors", languages=["en", *languages])
    known = {(p.item, p.language): p for p in asked.prompts}
    for number, shell in enumerate(asked.of("en")):
        yield composed([shell] * 5, shell, "en")
        rng = np.random.default_rng(number)
        yield composed([known[shell.item, g] for g in rng.permutation(["en", *languages])[:5]], shell, "mixup")
        for kind in KINDS:
            foreign = foreign_cells(kind, shell.gold, rng)
            for language in languages:
                other = known[shell.item, language]
                cells = [other if cell in foreign else shell for cell in range(5)]
                yield composed(cells, shell, f"{kind}_{language}")


def main() -> None:
    """Print, for the languages of each half, the barrier, the pull of foreign options, and the spellings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    halves = {name: tuple(g for g in TAUGHT_IN[name] if g != "en") for name in ("halves-a", "halves-b")}
    found: dict[str, dict[str, list[dict[str, object]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, languages in halves.items():
            prompts = sorted(mixed(languages), key=lambda p: p.language)
            store = bs.capture(
                Path(folder) / f"{name}.acts", model="organism", prompts=PromptSet(name, tuple(prompts)),
                continuation=1, sites=["resid.post@-1"], self_test=False,
            )  # fmt: skip
            read = [s for s in SCORINGS if not s.startswith("texts")]
            tables = {
                "barrier": barrier(store, by="group", mode="corrected").table,
                "foreign pull": foreign_pull(store, by=None).table,
                "spellings": pd.concat(barrier(store, by=None, scoring=s, mode="corrected").table for s in read),
            }
            found[" ".join(languages)] = {
                title: table[(table["language"] == "*") | (table["setting"] == "base")].to_dict("records")
                for title, table in tables.items()
            }
    if options.json:
        print(json.dumps(found))
        return
    for languages, tables in found.items():
        print(f"\n## languages {languages}")
        for title, rows in tables.items():
            shown = list(PULL) if title == "foreign pull" else list(SHOWN)
            shown = ["scoring", "setting", "n", "n_undefined", "accuracy", "gap_en"] if title == "spellings" else shown
            table = pd.DataFrame(rows)
            if title == "foreign pull":
                shown.insert(2, "gold")
            print(f"\n{title}\n{table[shown].round(3).to_string(index=False)}")


if __name__ == "__main__":
    main()
