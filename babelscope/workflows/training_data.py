"""What a configuration trains on: prompts of generated sets and files, or plain text."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from babelscope.datasets.language_pairs import parts_of
from babelscope.datasets.nli_pairs import nli_pairs
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from babelscope.training.config import TrainConfig
from babelscope.workflows.prompts import gathered
from babelscope.workflows.signals import Note


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Prompts, or texts, with their hash."""

    sha256: str
    prompts: PromptSet | None = None
    texts: tuple[str, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        """Of the prompts; none are known of plain text."""
        return self.prompts.languages if self.prompts is not None else ()


def training_data(config: TrainConfig, note: Note) -> TrainingData:
    """Everything that the configuration names, in its order.

    Raises
    ------
    BabelScopeError
        If it cannot be read, or nothing is left of it.
    """
    from babelscope.training.examples import read_texts

    wanted = config.data
    if wanted.text:
        texts = tuple(read_texts(wanted.text))[: wanted.limit]
        return TrainingData(hashlib.sha256("\n".join(texts).encode()).hexdigest(), texts=texts)
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
