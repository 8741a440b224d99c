"""How a causal model answers: log-scores of the option labels as next token, and of the option texts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from babelscope.hooks.label_spellings import spelled_tokens, token_written
from babelscope.hooks.tokens import Encoded
from babelscope.schema import SPELLINGS, Answers, Prompt
from babelscope.schema.captured import NO_OPTION, spelling_problem

FloatArray: TypeAlias = NDArray[np.float64]


def labels_of(prompt: Prompt) -> tuple[str, ...]:
    """What the model is expected to say: the option letters, or the options where they have none."""
    return prompt.letters or prompt.options


def label_tokens(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> tuple[tuple[int, ...], ...] | str:
    """Token ids that count as each label, or the reason why the labels cannot be told apart.

    A label is a single token, with or without a leading space. Where one of the labels has no such token, the
    first tokens stand for all labels, provided that they differ.
    """
    spelled = [[_ids(tokenizer, text) for text in (label, " " + label)] for label in labels]
    single = [
        {ids[0] for ids in variants if len(ids) == 1} | _whole(tokenizer, label)
        for label, variants in zip(labels, spelled, strict=True)
    ]
    single = [{i for i in ids if i != tokenizer.unk_token_id} for ids in single]
    if all(single) and _disjoint(single):
        return tuple(tuple(sorted(ids)) for ids in single)
    first: list[set[int]] = [set() for _ in labels]
    for variant in range(2):
        starts = [ids[variant][0] if ids[variant] else None for ids in spelled]
        if None not in starts and tokenizer.unk_token_id not in starts and len(set(starts)) == len(labels):
            for ids, start in zip(first, starts, strict=True):
                ids.add(start)  # type: ignore[arg-type]
    if all(first) and _disjoint(first):
        return tuple(tuple(sorted(ids)) for ids in first)
    return f"the first tokens of the labels {', '.join(labels)} do not tell them apart"


def untold(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> str:
    """A line on the prompts whose labels cannot be told apart, with the first reason; empty where there are none."""
    known = {labels: label_tokens(tokenizer, labels) for labels in {labels_of(p) for p in prompts} if labels}
    reasons = [x for x in (known.get(labels_of(p)) for p in prompts) if isinstance(x, str)]
    if not reasons:
        return ""
    return (
        f"{len(reasons)} of {len(prompts)} prompts are not scored by their labels: {reasons[0]}; "
        "option texts (--answers texts) can tell them apart"
    )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _whole(tokenizer: PreTrainedTokenizerBase, label: str) -> set[int]:
    # SentencePiece tokenizers put a space before every text, so encoding never yields the bare label.
    found = token_written(tokenizer, label)
    return set() if found is None else {found}


def _disjoint(groups: Sequence[set[int]]) -> bool:
    return sum(map(len, groups)) == len(set().union(*groups))


def option_texts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], encoded: Sequence[Encoded], *, behind: bool
) -> list[list[list[tuple[int, ...]]]]:
    """Token ids of each option's text behind its prompt: prompt -> option -> spellings, one or two.

    A text follows the prompt with and without a space, as labels do. Its tokens are those that stand behind the
    prompt's own when both are encoded together; where the tokenizer would merge the two, and where the prompt ends
    in a special token, the text is encoded by itself.

    Parameters
    ----------
    behind : bool
        False in encoder-decoders, where the text does not follow the prompt but what starts the decoder.
    """
    texts = [[spelled for option in p.options for spelled in (option, " " + option)] for p in prompts]
    flat = [(p.text, spelled) for p, found in zip(prompts, texts, strict=True) for spelled in found]
    alone = iter(_all_ids(tokenizer, [spelled for _, spelled in flat], add_special_tokens=False))
    joined = iter(_all_ids(tokenizer, [text + spelled for text, spelled in flat]) if behind else [[]] * len(flat))
    result = []
    for prompt, tokens in zip(prompts, encoded, strict=True):
        options = []
        for _ in prompt.options:
            spellings = []
            for _ in range(2):
                whole, ids = next(joined), next(alone)
                n = len(tokens)
                follows = len(whole) > n and tuple(whole[:n]) == tokens.ids
                spellings.append(tuple(whole[n:] if follows else ids))
            options.append(list(dict.fromkeys(spellings)))
        result.append(options)
    return result


def _all_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], **options: bool) -> list[list[int]]:
    found: list[list[int]] = tokenizer(texts, verbose=False, **options)["input_ids"] if texts else []
    return found


@contextmanager
def last_token_only(unembedding: nn.Module, last: Tensor) -> Iterator[None]:
    """Inside, the unembedding sees one token per prompt, so logits are (prompt, 1, vocabulary).

    What a model does to its logits afterwards (scaling, soft caps) is left to it.
    """

    def cut(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        rows = torch.arange(len(last), device=hidden.device)
        return (hidden[rows, last.to(hidden.device)].unsqueeze(1), *args[1:])

    handle = unembedding.register_forward_pre_hook(cut)
    try:
        yield
    finally:
        handle.remove()


class AnswerSheet:
    """Answers of one block, filled in batch by batch.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    prompts : sequence of Prompt
        In the order of the rows.
    n_options : int
        Width of the scores, the same in every block of a plan; 0 where options are not scored.
    spellings : bool
        Score each spelling of the labels by itself as well.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], n_options: int, *, spellings: bool = False
    ) -> None:
        self._prompts = prompts
        known = {labels: label_tokens(tokenizer, labels) for labels in {labels_of(p) for p in prompts} if labels}
        self._tokens = [known.get(labels_of(p), ()) if n_options else () for p in prompts]
        self._scores: FloatArray = np.full((len(prompts), n_options), np.nan)
        self._label_scores: NDArray[np.float32] | None = None
        self._label_tokens: NDArray[np.int32] | None = None
        if spellings:
            spelled = {
                labels: spelled_tokens(tokenizer, labels, n_options) for labels in {labels_of(p) for p in prompts}
            }
            self._label_tokens = np.array([spelled[labels_of(p)] for p in prompts], np.int32)
            self._label_tokens = self._label_tokens.reshape(len(prompts), n_options, len(SPELLINGS))
            self._label_scores = np.full(self._label_tokens.shape, np.nan, np.float32)
        self._text_scores: FloatArray | None = None
        self._text_tokens: NDArray[np.int64] | None = None
        self._continuation: tuple[str, ...] | None = None

    def fill(self, rows: Sequence[int], logits: Tensor) -> None:
        """Score the prompts `rows` by their next-token logits (prompt, vocabulary)."""
        scores = torch.log_softmax(logits.float(), dim=-1).cpu().double().numpy()
        for row, score in zip(rows, scores, strict=True):
            tokens = self._tokens[row]
            if not isinstance(tokens, str):
                for option, ids in enumerate(tokens):
                    self._scores[row, option] = score[list(ids)].max()
            if self._label_tokens is not None and self._label_scores is not None:
                for spelling, spelled in enumerate(self._label_tokens[row].T):
                    known = spelled != NO_OPTION
                    if not spelling_problem(spelled):
                        self._label_scores[row, known, spelling] = score[spelled[known]]

    def fill_texts(
        self, spellings: Sequence[Sequence[Sequence[tuple[int, ...]]]], scores: Sequence[FloatArray]
    ) -> None:
        """Keep the better spelling of each option.

        Parameters
        ----------
        spellings : sequence
            `option_texts` of all prompts.
        scores : sequence of ndarray
            Log-probabilities of all spellings of a prompt, option after option.
        """
        self._text_scores = np.full_like(self._scores, np.nan)
        self._text_tokens = np.zeros(self._scores.shape, np.int64)
        for row, (options, found) in enumerate(zip(spellings, scores, strict=True)):
            ends = np.cumsum([len(spelled) for spelled in options])
            for option, spelled in enumerate(options):
                values = found[ends[option] - len(spelled) : ends[option]]
                if not np.isnan(values).all():
                    best = int(np.nanargmax(values))
                    self._text_scores[row, option] = values[best]
                    self._text_tokens[row, option] = len(spelled[best])

    def fill_continuation(self, written: Sequence[str]) -> None:
        """Keep what the model wrote behind each prompt."""
        self._continuation = tuple(written)

    def done(self) -> Answers:
        """Scores, the best option, and whether it is the gold one."""
        answered = np.count_nonzero(~np.isnan(self._scores), axis=1) > 0
        choice = np.full(len(self._prompts), -1, dtype=np.int64)
        choice[answered] = np.nanargmax(self._scores[answered], axis=1) if answered.any() else choice[answered]
        gold = [p.gold for p in self._prompts]
        correct = np.array(
            [float(c == g) if a and g is not None else np.nan for a, c, g in zip(answered, choice, gold, strict=True)],
            dtype=np.float64,
        )
        undefined = {i: tokens for i, tokens in enumerate(self._tokens) if isinstance(tokens, str)}
        return Answers(
            self._scores, choice, correct, undefined, self._text_scores, self._text_tokens, self._continuation,
            self._label_scores, self._label_tokens,
        )  # fmt: skip
