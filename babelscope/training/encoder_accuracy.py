"""What the encoder organism answers right, cell by cell of its truth table: taught and not taught."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint
from transformers import BertForMaskedLM, PreTrainedTokenizerFast

from babelscope.datasets.facts import facts
from babelscope.datasets.statements import truth_words
from babelscope.training.encoder_corpus import Passage, fact_passage, statements
from babelscope.training.encoder_organism import Encoded, encode
from babelscope.training.truth import TruthTable

BATCH = 64


def recall_table(
    model: BertForMaskedLM,
    tokenizer: PreTrainedTokenizerFast,
    table: TruthTable,
    *,
    n: int = 400,
    languages: Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy of the masked answer in every cell, with Wilson 95 % intervals.

    Statements are about theories of the test split; the answer is the likelier of the two truth words. Facts are those
    of the corpus; every token of the answer must be the likeliest of the vocabulary.

    Parameters
    ----------
    n : int
        Statements in each cell of reasoning.
    languages : sequence of str, optional
        Default: those of the table. A code `a-b` has its context in a and its statement in b; facts have none.

    Returns
    -------
    pandas.DataFrame
        `family, kind, sharing, language, taught, accuracy, low, high, n, chance`; chance is .5 for statements and
        for facts the share of the commonest answer.
    """
    rows = []
    for family in table.families:
        for language in languages or table.languages:
            if family.kind == "reasoning":
                rng = np.random.default_rng([seed, 2])
                cells = {table.taught(family.name, language): statements(family.name, [language], n, rng, "test")}
            elif "-" not in language:
                cells = _facts_by_cell(table, family.name, language)
            else:
                continue
            for taught, asked in cells.items():
                right = int(answered(model, tokenizer, asked).sum())
                low, high = proportion_confint(right, len(asked), method="wilson")
                commonest = Counter(p.answer for p in asked).most_common(1)[0][1] / len(asked)
                rows.append(
                    {
                        "family": family.name, "kind": family.kind, "sharing": family.sharing, "language": language,
                        "taught": taught, "accuracy": right / len(asked), "low": low, "high": high, "n": len(asked),
                        "chance": commonest if family.kind == "facts" else 0.5,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _facts_by_cell(table: TruthTable, family: str, language: str) -> dict[bool, list[Passage]]:
    cells: dict[bool, list[Passage]] = {}
    for fact in facts():
        if fact.relation == family:
            taught = table.taught(family, language, fact.subject)
            cells.setdefault(taught, []).append(fact_passage(fact, language))
    return cells


@torch.no_grad()
def answered(model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Passage]) -> NDArray[np.bool_]:
    """Whether the masked answer of each passage is predicted right, `(passage,)`."""
    encoded = encode(asked, tokenizer)
    right = np.zeros(len(asked), dtype=np.bool_)
    for places in _batches(encoded):
        logits = _logits(model, tokenizer, [encoded[i] for i in places])
        for row, i in enumerate(places):
            span = slice(encoded[i].answer, len(encoded[i].ids) - 1)
            gold = torch.from_numpy(encoded[i].ids[span].astype(np.int64))
            scores = logits[row, span]
            if asked[i].label >= 0:
                right[i] = _likelier(scores, tokenizer, asked[i].languages[1]) == asked[i].label
            else:
                right[i] = bool((scores.argmax(-1) == gold).all())
    return right


def _batches(encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))
    return (order[start : start + BATCH] for start in range(0, len(order), BATCH))


def _logits(model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Encoded]) -> torch.Tensor:
    ids = torch.full((len(rows), max(len(row.ids) for row in rows)), tokenizer.pad_token_id, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.from_numpy(row.ids.astype(np.int64))
        ids[i, row.answer : len(row.ids) - 1] = tokenizer.mask_token_id
    mask = (ids != tokenizer.pad_token_id).long()
    model.eval()  # type: ignore[no-untyped-call]
    logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits


def _likelier(scores: torch.Tensor, tokenizer: PreTrainedTokenizerFast, language: str) -> int:
    """Which truth word is likelier, 0 for false: each is one token in the vocabulary of the organism."""
    tokens = [tokenizer(word, add_special_tokens=False).input_ids for word in truth_words(language)]
    return int(scores[0, [t[0] for t in tokens]].argmax())
