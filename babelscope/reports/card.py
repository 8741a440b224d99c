"""The data card: what was asked, in which languages, and what about it can make a similarity look like thought."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from babelscope.activations_store import ActivationStore
from babelscope.datasets.scripts import main_script
from babelscope.datasets.text_units import words
from babelscope.schema import Prompt

# Words in at least this share of the prompts of a language are its template.
OF_TEMPLATE = 0.9
# A template that is longer than this share of the words is flagged.
MOST_TEMPLATE = 0.5
# Equal texts in two languages beyond this share of items were hardly translated.
MOST_EQUAL = 0.05
# With fewer items, intervals are wide and similarities of sets (CKA) are noisy.
FEWEST_ITEMS = 50
# With fewer still, a bootstrap draws from too little to know how wide they are.
TOO_FEW = 20


@dataclass(frozen=True, slots=True)
class Card:
    """What a reader should know of the data before believing any claim.

    Parameters
    ----------
    table : DataFrame
        One row per language: script, n items, tokens (median), tokens per word, length beside the first language,
        overlap of words with it in matched and in mismatched items, template (share of words that
        nearly all prompts have), last tokens. NaN where texts were not kept.
    flags : tuple of str
        Red flags, a sentence each.
    """

    table: pd.DataFrame
    flags: tuple[str, ...]


def data_card(store: ActivationStore) -> Card:
    """The card of a store: answers and, where they were kept, texts are read, activations are not."""
    answers = store.answers
    prompts = {language: _by_item(store, language) for language in store.languages} if store.has_texts else {}
    first = store.languages[0]
    rows = []
    for language in store.languages:
        mine = answers[answers["language"] == language]
        row: dict[str, object] = {"language": language, "n": len(mine), "tokens": float(mine["n_tokens"].median())}
        row |= _of_texts(mine, prompts[language], prompts[first], is_first=language == first) if prompts else {}
        last = mine["last_token"].value_counts()
        token = str(last.index[0]) if len(last) else ""
        row |= {"last_tokens": len(last), "last_token": _read(token, prompts.get(language, {}).values())}
        rows.append(row)
    table = pd.DataFrame(rows)
    return Card(table, (*_flags_of_capture(store), *_flags_of_texts(table, prompts)))


def _read(token: str, prompts: Iterable[Prompt]) -> str:
    """A token as it is read: where no text ends as it is spelled, its signs are bytes, and the last letter is shown."""
    if token.isascii():  # [SEP] and </s> among them, which stand in no text
        return token
    texts = [p.text.rstrip() for p in prompts]
    spelled = token.lstrip("\u2581\u0120")  # what tokenizers write for a space
    if not texts or any(text.endswith(spelled) for text in texts):
        return token
    ends = {text[-1:] for text in texts}
    return ends.pop() if len(ends) == 1 else token


def _by_item(store: ActivationStore, language: str) -> dict[str, Prompt]:
    return {p.item: p for p in store.prompts.of(language)}


def _of_texts(
    answers: pd.DataFrame, mine: dict[str, Prompt], first: dict[str, Prompt], *, is_first: bool
) -> dict[str, object]:
    counts = {item: len(words(p.text)) for item, p in mine.items()}
    spoken = answers.assign(words=answers["item"].map(counts).astype(float))  # of an unfinished capture, none
    both = [item for item in mine if item in first]
    matched, mismatched = _overlap([mine[i] for i in both], [first[i] for i in both])
    return {
        "script": main_script(p.text for p in mine.values()),
        "words": float(spoken["words"].median()),
        "tokens_per_word": float(spoken["n_tokens"].sum() / spoken["words"].sum()) if spoken["words"].sum() else np.nan,
        "length_ratio": _mean(len(mine[i].text) / len(first[i].text) for i in both if first[i].text),
        "word_overlap": np.nan if is_first else matched,
        "word_overlap_null": np.nan if is_first else mismatched,
        "template": _template(list(mine.values())),
    }


def _overlap(mine: Sequence[Prompt], first: Sequence[Prompt]) -> tuple[float, float]:
    """Shared words per word of two prompts (Jaccard): mean over matched items, and over mismatched ones (the next)."""
    a, b = ([set(words(p.text)) for p in prompts] for prompts in (mine, first))
    if len(a) < 2:
        return np.nan, np.nan
    matched = _mean(len(x & y) / len(x | y) for x, y in zip(a, b, strict=True) if x | y)
    mismatched = _mean(len(x & y) / len(x | y) for x, y in zip(a, b[1:] + b[:1], strict=True) if x | y)
    return matched, mismatched


def _template(prompts: Sequence[Prompt]) -> float:
    """Share of the words of a prompt that nearly all prompts have, mean over prompts of its kind (demand or task)."""
    kinds: dict[object, list[list[str]]] = {}
    for p in prompts:
        kinds.setdefault(p.covariates.get("demand", p.covariates.get("task")), []).append(list(words(p.text)))
    shares = []
    for texts in kinds.values():
        counts = pd.Series([w for text in texts for w in set(text)]).value_counts()
        common = set(counts[counts >= OF_TEMPLATE * len(texts)].index)
        shares += [sum(w in common for w in text) / len(text) for text in texts if text] if len(texts) > 1 else []
    return _mean(shares)


def _mean(values: Iterable[float]) -> float:
    """Mean of the values that are defined; NaN where none is."""
    known = list(values)
    return float(np.mean(known)) if known else np.nan


def _flags_of_capture(store: ActivationStore) -> list[str]:
    found = []
    done, planned = store.progress
    if done < planned:
        found.append(
            f"The capture is unfinished: {done} of {planned} shards; only items found in every language count."
        )
    if len(store.failed):
        found.append(f"{len(store.failed)} prompts failed and are not in the store (`store.failed` says why).")
    if len(store.marked):
        found.append(f"{len(store.marked)} rows hold values that were clipped or are not finite (`store.marked`).")
    if not store.has_texts:
        found.append("Texts were not kept: templates, words and translations cannot be checked.")
    correct = store.answers["correct"]
    if correct.isna().all():
        found.append("The model was asked for no answers: whether it can do the task is not known.")
    return found


def _flags_of_texts(table: pd.DataFrame, prompts: dict[str, dict[str, Prompt]]) -> list[str]:
    found = []
    if (few := int(table["n"].min())) < FEWEST_ITEMS:
        how = "too narrow, and nothing is sure" if few < TOO_FEW else "wide"
        found.append(f"Only {few} items in a language: intervals are {how}; similarities of sets, as CKA, are noisy.")
    if (table["last_tokens"] == 1).all():
        found.append(
            "All prompts of a language end in the same token: a raw similarity at position last is that of the cue, so "
            "read gaps, and look at other positions."
        )
    if "template" in table and (long := table[table["template"] > MOST_TEMPLATE]).size:
        listed = ", ".join(f"{a} ({b:.0%})" for a, b in zip(long["language"], long["template"], strict=True))
        found.append(
            f"More than half of the words are template, those of nearly all prompts of a kind: {listed}. Use "
            "restricted nulls (--within, --recipe null-ladder)."
        )
    for language, mine in prompts.items():
        first = next(iter(prompts.values()))
        both = [item for item in mine if item in first]
        equal = sum(mine[i].text == first[i].text for i in both)
        if mine is not first and both and equal > MOST_EQUAL * len(both):
            found.append(
                f"{equal} of {len(both)} texts in {language} equal those of the first language: not translated?"
            )
    return found
