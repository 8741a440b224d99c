"""Stores of mixed-language questions with chosen answers, their prompts made by hand."""

from dataclasses import replace

import numpy as np

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.schema import Answers, Prompt, PromptSet, Segment
from tests.store.stores import make_block, make_plan

LETTERS = ("A", "B", "C", "D")


def foreign_in(kind, gold):
    """Cells in another language, 0 the question; the wrong option of onewrong is the one behind the right one."""
    wrong = {i for i in range(1, 5) if i != gold + 1}
    return {
        "full": {0, 1, 2, 3, 4}, "question": {0}, "options": {1, 2, 3, 4}, "gt": {gold + 1},
        "gt_question": {0, gold + 1}, "onewrong": {(gold + 1) % 4 + 1}, "threewrong": wrong,
    }.get(kind, set())  # fmt: skip


def question(number, code, spoken, same=()):
    """Item `number`, gold `number % 4`; a cell's text says its language, but for cells in `same`."""
    text, segments, options = "", [], []
    for cell, language in enumerate(spoken):
        text += f"\n{LETTERS[cell - 1]}. " if cell else ""
        part = f"{'option' if cell else 'question'} {cell}" + (
            "" if language == "en" or cell in same else f" {language}"
        )
        segments.append(Segment(f"option-{cell}" if cell else "question", len(text), len(text) + len(part), language))
        options += [part] if cell else []
        text += part
    return Prompt(f"item/{number}", code, text + "\nAnswer:", tuple(segments), LETTERS, tuple(options), number % 4,
                  covariates={"task": "t"})  # fmt: skip


def spoken_in(code, gold, language="de"):
    kind, _, rest = code.partition("+")[0].rpartition("_")
    if code.startswith("mixup"):
        return ["de", "fr", "en", "de", "fr"]
    foreign = foreign_in(kind, gold) if kind else set()
    return [rest if cell in foreign else "en" for cell in range(5)]


def mixed_store(path, choices, same=(), spelled=None, written=None, leave_out=(), texts=True):
    """Code -> which option is chosen of each item, NaN for an answer that is undefined.

    `spelled` is the choice by (code, spelling) where it is another one, `written` by code what is continued with.
    """
    n = len(next(iter(choices.values())))
    prompts = PromptSet("mixed", tuple(
        question(i, code, spoken_in(code, i % 4), same if i in (1, 3) else ())
        for code in choices for i in range(n) if (code, i) not in leave_out
    ))  # fmt: skip
    plan = make_plan(prompts, block_items=n, spellings=spelled is not None, continuation=8 if written else 0)
    plain = replace(plan, spellings=False, continuation=0)
    with StoreWriter.create(path, plan, prompts, {}, texts=texts) as writer:
        for code, index in writer.pending():
            block = make_block(plain, code, index, [i for c, i in leave_out if c == code])
            answers = _answers(np.array(choices[code], float)[block.items], block.items % 4)
            if spelled is not None:
                answers = replace(answers, **_spelled(spelled, code, answers.choice, block.items))
            if written:
                answers = replace(answers, continuation=tuple(written[code][i] for i in block.items))
            writer.put(replace(block, answers=answers))
    return ActivationStore.open(path)


def _scores(choice):
    return np.where(np.arange(4) == choice[:, None], -0.5, -2.0)


def _answers(choice, gold):
    scores = np.where(np.isnan(choice)[:, None], np.nan, _scores(choice))
    correct = np.where(np.isnan(choice), np.nan, choice == gold)
    undefined = {int(row): "no label" for row in np.flatnonzero(np.isnan(choice))}
    return Answers(scores, np.nan_to_num(choice, nan=-1).astype(int), correct, undefined)


def _spelled(spelled, code, choice, items):
    scores = np.stack([
        _scores(np.array(spelled[code, s])[items] if (code, s) in spelled else choice)
        for s in ("bare", "spaced", "last")
    ], axis=2)  # fmt: skip
    tokens = np.tile(np.arange(12, dtype=np.int32).reshape(4, 3), (len(items), 1, 1))
    return {"label_scores": scores.astype(np.float32), "label_tokens": tokens}


def right(n):
    return [i % 4 for i in range(n)]


def wrong(n, where):
    """Right but for the items in `where`, in which the option behind the right one is chosen."""
    return [(i + 1) % 4 if i in where else i % 4 for i in range(n)]
