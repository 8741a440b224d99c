"""What a configuration trains on: prompts of generated sets and files, or plain text."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from babelscope.datasets.language_pairs import parts_of
from babelscope.datasets.nli_pairs import nli_pairs
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from babelscope.training.config import Data, TrainConfig
from babelscope.workflows.prompts import gathered, prompts_of
from babelscope.workflows.signals import Note


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Prompts, or texts, with their hash."""

    sha256: str
    prompts: PromptSet | None = None
    texts: tuple[str, ...] = ()
    spoken: tuple[str, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        """Of the prompts, or of the parts of a mixed-language corpus; none are known of plain text."""
        return self.prompts.languages if self.prompts is not None else self.spoken


def training_data(config: TrainConfig, note: Note) -> TrainingData:
    """Everything that the configuration names, in its order.

    Raises
    ------
    BabelScopeError
        If it cannot be read, or nothing is left of it.
    """
    wanted = config.data
    if wanted.text:
        return _texts(wanted, note)
    codes = wanted.languages
    if wanted.parallel:  # both texts are contexts, which the generated sets have in single languages
        codes = list(dict.fromkeys(part for code in codes or () for part in parts_of(code) or (code,)))
    prompts = gathered(wanted.prompts, wanted.parameters, split="train", languages=codes, limit=wanted.limit, note=note)
    if wanted.parallel:
        prompts = nli_pairs(prompts, wanted.languages or (), parallel=True, texts=("context", "context"))
    if wanted.one_language_each:
        prompts = _one_language_each(prompts, config.seed)
    if wanted.rules:
        kept = tuple(p for p in prompts.prompts if p.covariates.get("rule") in wanted.rules)
        if not kept:
            rules = sorted({str(p.covariates.get("rule")) for p in prompts.prompts})
            raise BabelScopeError(
                f"no prompt has a rule among {', '.join(wanted.rules)}", f"the data have {', '.join(rules)}"
            )
        prompts = replace(prompts, prompts=kept)
    return TrainingData(prompts.digest(), prompts)


def _one_language_each(prompts: PromptSet, seed: int) -> PromptSet:
    rng, languages = np.random.default_rng(seed), prompts.languages
    drawn = {
        item: languages[k]
        for item, k in zip(prompts.items, rng.integers(len(languages), size=len(prompts.items)), strict=True)
    }
    return replace(prompts, prompts=tuple(p for p in prompts.prompts if drawn[p.item] == p.language))


def _texts(wanted: Data, note: Note) -> TrainingData:
    """Documents of plain text, and of the corpora that `data mix` writes."""
    from babelscope.training.examples import read_texts

    texts: list[str] = []
    spoken: dict[str, None] = {}
    for file in wanted.text:
        if not file.endswith(".jsonl"):
            texts += list(read_texts([file]))[: wanted.limit]
            continue
        found, notes = prompts_of([file], languages=wanted.languages, limit=wanted.limit)
        for text in notes:
            note(text)
        texts += [p.text for p in found.prompts]
        spoken |= dict.fromkeys(s.language for p in found.prompts for s in p.segments)
    sha256 = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return TrainingData(sha256, texts=tuple(texts), spoken=tuple(sorted(spoken)))
