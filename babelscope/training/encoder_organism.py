"""The encoder organism: a small multilingual BERT trained from nothing on text whose sharing we decide."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from babelscope.training.corpus import Ingredient
from babelscope.training.encoder_corpus import KNOWLEDGE, LANGUAGES, TRANSLATION, Passage, passages, truth_table
from babelscope.training.encoder_tokenizer import train_encoder_tokenizer
from babelscope.training.mimetic import initialize
from babelscope.training.stages import Batches, Phase, Stage, StageTrainer, set_seeds, shortened, train_stages
from babelscope.training.truth import write_truth

# Ordinary masked-language modelling masks this share of the tokens, four in five of them by [MASK], after Devlin et al.
# (2019), arXiv:1810.04805, section 3.1.
MASKED_SHARE = 0.15
# ... in every text without an answer and in half of the others: a theory with a hole in it often decides nothing.
ROWS_MASKED = 0.5
# In a cloze the answer is shown, and this share of the statement is masked.
CLOZE_SHARE = 0.3


def _of(kind: str, share: float, **parameters: Any) -> Ingredient:
    return Ingredient(kind, share, parameters=parameters)


# First the missing word of a true statement is found in the theory, then statements are judged, then rules are applied.
FIND = Phase((_of("fact", 1, cloze=True, true_only=True),), 51_200, 128)
JUDGE = Phase(
    (
        _of("fact", 0.5),
        _of("fact", 0.2, cloze=True),
        _of("fact", 0.3, cloze=True, true_only=True, others=2),
    ),
    38_400,
    128,
)
APPLY = Phase(
    (
        _of("fact", 0.15),
        _of("fact-negated", 0.15),
        _of("any", 0.35, cloze=True, true_only=True),
        _of("any", 0.35),
    ),
    57_600,
    64,
)
ALL = Phase(
    (
        _of("fact", 0.1),
        _of("fact-negated", 0.12),
        _of("any", 0.2),
        _of("any", 0.06, cloze=True, true_only=True),
        _of("any-negated", 0.06),
        _of("both", 0.1),
        _of("both", 0.04, cloze=True, true_only=True),
        _of(KNOWLEDGE, 0.24),
        _of(TRANSLATION, 0.08),
    ),
    89_600,
    64,
)
# Rules about one name first: whether a condition is told of anyone, before of whom it is told.
BRIDGE = Phase(
    (
        _of("fact", 0.05),
        _of("fact-negated", 0.15),
        _of("any", 0.3, alone=True),
        _of("any", 0.1, alone=True, cloze=True, true_only=True),
        _of("any", 0.2),
        _of("any", 0.1, cloze=True, true_only=True),
        _of(KNOWLEDGE, 0.1),
    ),
    51_200,
    64,
)
# The first stage stops where facts are matched and rules are not.
STAGES = (Stage((FIND, JUDGE, APPLY, ALL), 1e-3, stop=1600), Stage((BRIDGE, ALL), 1e-3))


@dataclass(frozen=True, slots=True)
class EncoderRecipe:
    """Everything that decides the encoder organism; equal recipes give equal weights on equal hardware.

    Parameters
    ----------
    stages : tuple of Stage
        What is trained on, in order; all theories are of the train split. Which language is taught what is no choice of
        the recipe: `encoder_corpus.truth_table`.
    vocabulary, width, layers, heads, mlp_width, context : int
        Shape of the BERT.
    sample : int
        Passages of each kind that the tokenizer is made from.
    seed : int
    """

    stages: tuple[Stage, ...] = STAGES
    vocabulary: int = 6144
    width: int = 128
    layers: int = 4
    heads: int = 4
    mlp_width: int = 384
    context: int = 512
    sample: int = 4000
    seed: int = 0

    def shortened(self, limit: int) -> "EncoderRecipe":
        """The same recipe with at most `limit` passages in each phase."""
        return replace(self, stages=shortened(self.stages, limit))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of a passage, the index of its second segment, that of its answer, and whether it is a cloze."""

    ids: NDArray[np.int32]
    second: int
    answer: int
    cloze: bool


def train_encoder_organism(recipe: EncoderRecipe, folder: Path, *, resume: bool = False) -> BertForMaskedLM:
    """Train the encoder organism and write model, tokenizer, recipe and truth table to `folder`.

    Checkpoints go to `folder/checkpoints`; `resume` continues from the newest one.

    Returns
    -------
    BertForMaskedLM
        The trained model, float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    set_seeds(recipe.seed)
    tokenizer = tokenizer_for(recipe)
    tokenizer.save_pretrained(folder)
    model = BertForMaskedLM(_config(recipe, len(tokenizer), tokenizer.pad_token_id))
    initialize(model)
    log = train_stages(
        model,
        _MaskedTrainer,
        recipe.stages,
        lambda number: _batches(recipe, number, tokenizer),
        folder / "checkpoints",
        recipe.seed,
        resume=resume,
    )
    model.save_pretrained(folder)
    write_truth(truth_table(), folder)
    record = {**asdict(recipe), "parameters": model.num_parameters(), "log": log}
    (folder / "recipe.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return model


def tokenizer_for(recipe: EncoderRecipe) -> PreTrainedTokenizerFast:
    """The tokenizer of a recipe, from a sample of everything that is taught."""
    reasoning = [f.name for f in truth_table().families if f.kind == "reasoning" and f.languages]
    kinds = tuple(_of(what, 1) for what in (*reasoning, KNOWLEDGE))
    drawn = passages(kinds, recipe.sample * len(kinds), recipe.seed)
    texts = (f"{p.first} {p.second} {p.answer}" for p in drawn)
    return train_encoder_tokenizer(texts, LANGUAGES, recipe.vocabulary)


def _batches(recipe: EncoderRecipe, number: int, tokenizer: PreTrainedTokenizerFast) -> Batches[Encoded]:
    before = sum(len(stage.phases) for stage in recipe.stages[:number])
    encoded = [
        (encode(passages(phase.mixture, phase.prompts, recipe.seed + before + i), tokenizer), phase.batch)
        for i, phase in enumerate(recipe.stages[number].phases)
    ]
    return Batches(encoded, lambda row: len(row.ids), lambda rows: collate(rows, tokenizer), recipe.seed)


def encode(drawn: Sequence[Passage], tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    """`[CLS] first [SEP] second answer [SEP]`; without a first segment `[CLS] second answer [SEP]`."""
    texts = ([p.first for p in drawn], [p.second for p in drawn], [p.answer for p in drawn])
    parts = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    start, end = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    found = []
    for passage, first, second, answer in zip(drawn, *parts, strict=True):
        before = [*start, *first, *(end if first else [])]
        ids = np.array([*before, *second, *answer, *end], dtype=np.int32)
        found.append(Encoded(ids, len(before), len(before) + len(second), passage.cloze))
    return found


def collate(rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Right-padded `(row, token)` inputs and labels; labels are -100 where nothing is predicted.

    `answer` marks the answers that are asked for. Masking draws from the random numbers of torch.
    """
    length = -(-max(len(row.ids) for row in rows) // 8) * 8
    ids = torch.full((len(rows), length), tokenizer.pad_token_id, dtype=torch.long)
    second, answer = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.from_numpy(row.ids.astype(np.int64))
        second[i, row.second : len(row.ids) - 1] = True
        answer[i, row.answer : len(row.ids) - 1] = not row.cloze
    cloze = torch.tensor([row.cloze for row in rows])[:, None]
    words = ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids)) & ~answer
    open_ = (torch.rand(len(rows), 1) < ROWS_MASKED) | ~answer.any(1, keepdim=True)
    share = torch.where(cloze, CLOZE_SHARE * second, MASKED_SHARE * open_)
    other = words & (torch.rand(ids.shape) < share)
    fate = torch.rand(ids.shape)
    hidden = torch.where(answer | other, tokenizer.mask_token_id, ids)
    hidden = torch.where(other & (fate < 0.1), ids, hidden)
    hidden = torch.where(other & (fate > 0.9), torch.randint(len(tokenizer), ids.shape), hidden)
    return {
        "input_ids": hidden,
        "attention_mask": (ids != tokenizer.pad_token_id).long(),
        "labels": torch.where(answer | other, ids, -100),
        "answer": answer,
    }


class _MaskedTrainer(StageTrainer):
    """Mean loss of the answers plus mean loss of the other masked tokens; only those are unembedded."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        inner = self.accelerator.unwrap_model(model)
        hidden = inner.bert(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        labels, answer = inputs["labels"], inputs["answer"]
        loss: torch.Tensor = hidden.sum() * 0
        for chosen in (answer, (labels != -100) & ~answer):
            if chosen.any():
                logits = inner.cls(hidden[chosen])
                loss = loss + torch.nn.functional.cross_entropy(logits, labels[chosen])
                if chosen is answer:
                    self.count(logits, labels[chosen])
        return loss


def _config(recipe: EncoderRecipe, vocabulary: int, pad: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.5 / math.sqrt(recipe.width),
        pad_token_id=pad,
    )
