"""The embedded organism: a small multilingual decoder trained from nothing on generated prompts."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from babelscope.datasets.words import LANGUAGES
from babelscope.training.corpus import MATCHING, Example, Ingredient, examples
from babelscope.training.organism_truth import truth_table
from babelscope.training.stages import Batches, Phase, Stage, StageTrainer, set_seeds, shortened, train_stages
from babelscope.training.tokenizer import train_tokenizer
from babelscope.training.truth import write_truth

# Share of the ordinary tokens whose prediction is also trained: enough to make it a language model, at a
# quarter of the cost of the unembedding.
LANGUAGE_MODEL_SHARE = 0.2
LANGUAGE_MODEL_WEIGHT = 0.3

# The rules that a model of this size learns in an hour, first with the published, easy distractors.
LEARNABLE = ("equality", "ascending_sort")


# A model that starts with the whole mixture stays at chance for tens of thousands of prompts: it would have to find
# three things at once (which option matches, what its letter is, where to write it). Forty numbers and short prompts
# show it these in a few hundred steps; longer prompts follow one change at a time, or it loses them again.
MATCH_THEN_COMPUTE = (
    Phase((Ingredient(MATCHING, 1, parameters={"numbers": 40}),), 40_000, 64),
    Phase((Ingredient(MATCHING, 1, parameters={"numbers": 1000}),), 24_000, 64),
    Phase(
        (
            Ingredient(MATCHING, 1, parameters={"numbers": 1000}),
            Ingredient(MATCHING, 1, parameters={"numbers": 1000, "instruction": True}),
        ),
        16_000,
        64,
    ),
    Phase(
        (
            Ingredient(MATCHING, 0.1, parameters={"numbers": 1000, "instruction": True}),
            Ingredient("kfrd-arithmetic", 0.2, LEARNABLE, {"compat": "paper"}),
            Ingredient("kfrd-arithmetic", 0.15, LEARNABLE),
            Ingredient("knowledge", 0.2),
            Ingredient("knowledge-bare", 0.35),
        ),
        130_000,
        32,
    ),
)

# Facts need repetition more than anything; the rest is kept from being forgotten.
THEN_RECALL = (
    Phase(
        (
            Ingredient(MATCHING, 0.03, parameters={"numbers": 1000, "instruction": True}),
            Ingredient("kfrd-arithmetic", 0.09, LEARNABLE),
            Ingredient("knowledge", 0.38),
            Ingredient("knowledge-bare", 0.5),
        ),
        130_000,
        32,
    ),
)

# People who do not exist, each group in languages of its own, so that it is known what can be known where. Shares
# grow with the number of facts times languages, so that each fact is seen equally often in each of its languages.
# In turn, so that neither half is all European.
HALVES = (LANGUAGES[0::2], LANGUAGES[1::2])
TAUGHT_IN = {"shared": LANGUAGES, "one-language": ("en",), "halves-a": HALVES[0], "halves-b": HALVES[1]}
CELLS = sum(len(codes) for codes in TAUGHT_IN.values())
THEN_AUTHORS = (
    Phase(
        (
            Ingredient(MATCHING, 0.01, parameters={"numbers": 1000, "instruction": True}),
            Ingredient("kfrd-arithmetic", 0.06, LEARNABLE),
            Ingredient("knowledge", 0.16),
            Ingredient("knowledge-bare", 0.22),
            *(
                Ingredient(name, share * len(codes) / CELLS, (), {"group": group}, codes)
                for name, share in (("fictional-authors", 0.22), ("fictional-authors-bare", 0.33))
                for group, codes in TAUGHT_IN.items()
            ),
        ),
        80_000,
        16,
    ),
)


# The first stage stops where arithmetic has reached its ceiling; the rest of the hour belongs to the facts.
STAGES = (Stage(MATCH_THEN_COMPUTE, 1e-3, stop=3186), Stage(THEN_RECALL, 1e-3), Stage(THEN_AUTHORS, 7e-4))

# Standard deviation of the shared initial query and key weights, see `_initialize`.
QUERY_KEY_STD = 0.06


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the organism; equal recipes give equal weights on equal hardware.

    Parameters
    ----------
    languages : tuple of str
    stages : tuple of Stage
        What is trained on, in order; all of it from the train split.
    vocabulary, width, layers, heads, mlp_width : int
        Shape of the Llama.
    seed : int
    """

    languages: tuple[str, ...] = LANGUAGES
    stages: tuple[Stage, ...] = STAGES
    vocabulary: int = 6144
    width: int = 160
    layers: int = 6
    heads: int = 5
    mlp_width: int = 448
    context: int = 512
    seed: int = 0

    def shortened(self, limit: int) -> "Recipe":
        """The same recipe with at most `limit` prompts in each phase."""
        return replace(self, stages=shortened(self.stages, limit))


# Token ids of prompt and answer, and the index of the first answer token.
Encoded = tuple[NDArray[np.int32], int]


def collate(rows: Sequence[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded `(row, token)` inputs, and where the answers are."""
    length = -(-max(len(ids) for ids, _ in rows) // 8) * 8
    ids = torch.full((len(rows), length), pad, dtype=torch.long)
    answer = torch.zeros(len(rows), length, dtype=torch.bool)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for row, (tokens, start) in enumerate(rows):
        ids[row, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
        mask[row, : len(tokens)] = 1
        answer[row, start : len(tokens)] = True
    return {"input_ids": ids, "attention_mask": mask, "answer": answer}


class _OrganismTrainer(StageTrainer):
    """Loss on every answer token and on a sample of the others; only those positions are unembedded."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        inner = self.accelerator.unwrap_model(model)
        hidden = inner.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        target = inputs["input_ids"][:, 1:]
        answer = inputs["answer"][:, 1:]
        real = inputs["attention_mask"][:, 1:].bool()
        other = real & ~answer & (torch.rand(real.shape, device=real.device) < LANGUAGE_MODEL_SHARE)
        losses = []
        for chosen in (answer, other):
            logits = inner.lm_head(hidden[:, :-1][chosen])
            losses.append(torch.nn.functional.cross_entropy(logits, target[chosen]))
            if chosen is answer:
                self.count(logits, target[chosen])
        return losses[0] + LANGUAGE_MODEL_WEIGHT * losses[1]


def train_organism(recipe: Recipe, folder: Path, *, resume: bool = False) -> LlamaForCausalLM:
    """Train the organism and write model, tokenizer, recipe and truth table to `folder`.

    Checkpoints go to `folder/checkpoints`; `resume` continues from the newest one.

    Returns
    -------
    LlamaForCausalLM
        The trained model, float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    set_seeds(recipe.seed)
    phases = [phase for stage in recipe.stages for phase in stage.phases]
    drawn = [examples(recipe.languages, p.mixture, p.prompts, recipe.seed + i) for i, p in enumerate(phases)]
    largest = max(drawn, key=len)
    tokenizer = train_tokenizer((e.prompt + e.answer for e in largest), recipe.vocabulary)
    tokenizer.save_pretrained(folder)
    model = LlamaForCausalLM(_config(recipe, tokenizer))
    _initialize(model)
    pad = tokenizer.pad_token_id

    def batches(number: int) -> Batches[Encoded]:
        first = sum(len(stage.phases) for stage in recipe.stages[:number])
        chosen = range(first, first + len(recipe.stages[number].phases))
        parts = [(encode(drawn[i], tokenizer), phases[i].batch) for i in chosen]
        return Batches(parts, lambda row: len(row[0]), lambda rows: collate(rows, pad), recipe.seed)

    log = train_stages(
        model, _OrganismTrainer, recipe.stages, batches, folder / "checkpoints", recipe.seed, resume=resume
    )
    model.save_pretrained(folder)
    write_truth(truth_table(recipe.languages, [phase.mixture for phase in phases]), folder)
    record = {**asdict(recipe), "parameters": model.num_parameters(), "log": log}
    (folder / "recipe.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return model


def _initialize(model: LlamaForCausalLM) -> None:
    """Equal query and key weights, so that at first a token attends to tokens like itself.

    Mimetic initialization after Trockman and Kolter (2023), arXiv:2305.09828, for queries and keys alone.
    """
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.q_proj.weight, std=QUERY_KEY_STD)
        layer.self_attn.k_proj.weight.data.copy_(layer.self_attn.q_proj.weight)


def encode(drawn: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    """Token ids of prompt and answer, and the index of the first answer token."""
    prompts = tokenizer([e.prompt for e in drawn]).input_ids
    answers = tokenizer([e.answer for e in drawn], add_special_tokens=False).input_ids
    return [(np.array(p + a, dtype=np.int32), len(p)) for p, a in zip(prompts, answers, strict=True)]


def _config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        initializer_range=0.5 / math.sqrt(recipe.width),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
