"""Texts to tokens, and tokens to right-padded batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from babelscope.errors import BabelScopeError
from babelscope.hooks.language_tokens import language_ids, source_token
from babelscope.hooks.mass import Reduction
from babelscope.hooks.models import LoadedModel
from babelscope.schema import Prompt, Site


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of one prompt.

    Parameters
    ----------
    ids : tuple of int
        Special tokens included, as the tokenizer adds them.
    spans : tuple of (int, int), or None
        Character span `[start, stop)` of each token, (0, 0) for those that the tokenizer adds; None from slow
        tokenizers.
    special : frozenset of int
        Indices of the special tokens: those that the tokenizer adds, and those written out in the text that it knows
        as special, by name ([CLS], <s>) or as added tokens (<|start_header_id|>). The token for unknown text is not
        one.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...] | None
    special: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[Encoded]:
    """Tokens of each prompt; what names the language of a text to an encoder (NLLB, M2M100, mBART) names its own.

    Raises
    ------
    BabelScopeError
        If the tokenizer names languages and has no token for that of a prompt.
    """
    return encode(tokenizer, [p.text for p in prompts], [p.language for p in prompts])


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], languages: Sequence[str] | None = None
) -> list[Encoded]:
    """Tokens of each text, never truncated; padding is ours alone (see `pad`).

    Parameters
    ----------
    languages : sequence of str, optional
        Language of each text. Without it, a tokenizer that names languages names the one it was saved with.
    """
    if not texts:
        return []
    own = None if languages is None else source_token(tokenizer)
    theirs = [-1] * len(texts) if own is None else language_ids(tokenizer, languages or ())
    found = tokenizer(
        list(texts),
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=tokenizer.is_fast,
        return_special_tokens_mask=True,
        verbose=False,
    )
    spans = found["offset_mapping"] if tokenizer.is_fast else [None] * len(texts)
    added_tokens = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = (added_tokens | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}
    return [
        Encoded(
            tuple(language if added and token == own else token for token, added in zip(ids, mask, strict=True)),
            None if span is None else tuple((a, b) for a, b in span),
            frozenset(i for i, (token, added) in enumerate(zip(ids, mask, strict=True)) if added or token in named),
        )
        for ids, span, mask, language in zip(
            found["input_ids"], spans, found["special_tokens_mask"], theirs, strict=True
        )
    ]


def batches(lengths: Sequence[int], token_budget: int, pass_cost: int) -> list[list[int]]:
    """Indices grouped into batches of similar length, with the least padding that the number of batches is worth.

    Shortest first, ties in the given order, so that equal input gives equal batches. Padding included, a batch
    holds `token_budget` tokens; a prompt longer than that gets a batch of its own. One more batch costs as much as
    `pass_cost` tokens.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    # Cheapest way to run the shortest n prompts: the last batch of it holds those from `start[n]` on.
    cost, start = [0], [0]
    for n in range(1, len(order) + 1):
        longest = lengths[order[n - 1]]
        fits = range(n - 1, max(-1, n - 1 - max(1, token_budget // max(1, longest))), -1)
        best, first = min((cost[i] + (n - i) * longest + pass_cost, i) for i in fits)
        cost.append(best)
        start.append(first)
    groups: list[list[int]] = []
    n = len(order)
    while n:
        groups.append(order[start[n] : n])
        n = start[n]
    return groups[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Token ids and attention masks of some prompts, each (prompt, token), padded on the right, on the model's device.

    Right padding with a mask is exact in every family; left padding without position ids is not in GPT-2 and
    BERT. The tokenizer's own `padding_side` is never asked. The decoder's are None but in encoder-decoders.

    `segments` holds by stack, (prompt, token, segment), which tokens belong to the segments that a plan names: 1 or 0,
    NaN in prompts that lack the segment.
    `shared` are lengths of nested runs of tokens that all prompts begin with; a backend may ignore them.
    `languages`, (prompt, token), stand beside the tokens of models that read them (see `languages`).
    """

    ids: Tensor
    mask: Tensor
    decoder_ids: Tensor | None = None
    decoder_mask: Tensor | None = None
    segments: Mapping[str, Tensor] = field(default_factory=dict)
    shared: tuple[int, ...] = ()
    languages: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, prompts: Sequence[int]) -> "Batch":
        """Some of the prompts, padded as before."""
        rows = list(prompts)
        beside = (self.decoder_ids, self.decoder_mask, self.languages)
        ids, mask, languages = (None if x is None else x[rows] for x in beside)
        segments = {tag: x[rows] for tag, x in self.segments.items()}
        return Batch(self.ids[rows], self.mask[rows], ids, mask, segments, languages=languages)

    def mask_of(self, stack: str) -> Tensor:
        """The mask of the tokens that a stack reads."""
        if stack != "dec":
            return self.mask
        assert self.decoder_mask is not None, "a decoder was asked about without its input"
        return self.decoder_mask

    def key_mask(self, site: Site) -> Tensor:
        """The mask of the tokens whose keys a site of attention reads."""
        return self.mask_of("enc" if site.kind.startswith("cross.") else site.stack)

    def reduction(self, site: Site, *, last_only: bool = False, even: bool = False) -> Reduction:
        """How a site such as `attn.mass` reduces attention in this batch, and with `even` even attention beside it."""
        key_stack = "enc" if site.kind.startswith("cross.") else site.stack
        keys = self.key_mask(site)
        segments = self.segments.get(key_stack, keys.new_zeros((*keys.shape, 0), dtype=torch.float32))
        return Reduction(self.mask_of(site.stack), keys, segments, key_stack == site.stack, last_only, even)

    @property
    def output_mask(self) -> Tensor:
        """The mask of the tokens that the unembedding reads."""
        return self.mask if self.decoder_mask is None else self.decoder_mask

    def inputs(self) -> dict[str, Tensor]:
        """Arguments of the model's forward pass."""
        inputs = {"input_ids": self.ids, "attention_mask": self.mask}
        if self.decoder_ids is not None and self.decoder_mask is not None:
            inputs |= {"decoder_input_ids": self.decoder_ids, "decoder_attention_mask": self.decoder_mask}
        if self.languages is not None:
            inputs["language_ids"] = self.languages
        return inputs


def make_batch(loaded: LoadedModel, encoded: Sequence[Encoded], decoder: Sequence[Encoded] | None = None) -> Batch:
    """One batch of some prompts, with what the decoder reads in encoder-decoders."""
    ids = pad(loaded, encoded)
    return Batch(*ids) if decoder is None else Batch(*ids, *pad(loaded, decoder))


def decoder_tokens(
    loaded: LoadedModel, policy: str, prompts: Sequence[Prompt], encoded: Sequence[Encoded]
) -> list[Encoded] | None:
    """What the decoder reads beside each prompt, or None in models with one stack.

    Parameters
    ----------
    policy : str
        A key of `DECODER_POLICIES`, or "" in models with one stack.

    Raises
    ------
    BabelScopeError
        If the model names no token that starts a decoder, or none for the language of a prompt.
    """
    if not policy:
        return None
    start = _decoder_start(loaded)
    if policy == "copy":
        return [
            Encoded(
                (start, *e.ids),
                None if e.spans is None else ((0, 0), *e.spans),
                frozenset({0, *(i + 1 for i in e.special)}),
            )
            for e in encoded
        ]
    if policy == "language":
        named = language_ids(loaded.tokenizer, [p.language for p in prompts], written=True)
        return [_no_text(start, token) for token in named]
    return [_no_text(start) for _ in prompts]


def _no_text(*ids: int) -> Encoded:
    return Encoded(ids, ((0, 0),) * len(ids), frozenset(range(len(ids))))


def _decoder_start(loaded: LoadedModel) -> int:
    generation = getattr(loaded.model, "generation_config", None)
    for source in (loaded.model.config, generation):
        found = getattr(source, "decoder_start_token_id", None)
        if isinstance(found, int):
            return found
    raise BabelScopeError(
        f"{loaded.ref.source} does not say which token starts its decoder",
        "set decoder_start_token_id in its config.json or generation_config.json",
    )


def pad(loaded: LoadedModel, encoded: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask (prompt, token) on the model's device, padded on the right."""
    length = max(map(len, encoded))
    ids = torch.full((len(encoded), length), pad_id(loaded), dtype=torch.long)
    mask = torch.zeros(len(encoded), length, dtype=torch.long)
    for row, prompt in enumerate(encoded):
        ids[row, : len(prompt)] = torch.tensor(prompt.ids)
        mask[row, : len(prompt)] = 1
    return ids.to(loaded.device), mask.to(loaded.device)


def pad_id(loaded: LoadedModel) -> int:
    """Any valid id would do, since padding is masked; that of the configuration is what the model expects."""
    config = loaded.model.config.get_text_config()
    for candidate in (
        getattr(config, "pad_token_id", None),
        loaded.tokenizer.pad_token_id,
        loaded.tokenizer.eos_token_id,
    ):
        if isinstance(candidate, int) and candidate >= 0:
            return candidate
    return 0
