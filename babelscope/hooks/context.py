"""How much a model can read at once, and prompts that are longer."""

from collections.abc import Sequence

from torch import nn

from babelscope.errors import BabelScopeError
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.tokens import Encoded, decoder_tokens, encode_prompts
from babelscope.schema import PromptSet


def context_length(loaded: LoadedModel, stack: str = "") -> tuple[int | None, str]:
    """Most tokens that a stack reads at once, and who sets the limit; None without a limit (ALiBi, relative positions).

    The tokenizer's own limit is one of texts, so it binds whatever reads the prompt, but no decoder beside an encoder.
    """
    limits: list[tuple[int, str]] = []
    side = {"enc": "encoder_", "dec": "decoder_"}.get(stack, "")
    # MPT makes its bias for `max_seq_len` tokens and no more; LED states a limit for each stack.
    for name in ("max_position_embeddings", "max_seq_len", f"max_{side}position_embeddings"):
        stated = getattr(loaded.model.config.get_text_config(), name, None)
        if isinstance(stated, int) and stated > 0:
            limits.append((stated - _unused_positions(loaded, stated), "the model's context"))
    if stack != "dec" and loaded.tokenizer.model_max_length < 10**9:  # a huge number stands for "unknown"
        limits.append((int(loaded.tokenizer.model_max_length), "the tokenizer's model_max_length"))
    return min(limits, default=(None, ""))


def _unused_positions(loaded: LoadedModel, stated: int) -> int:
    """Entries at the start of a position table that no token uses: XLM-R counts from behind its padding id."""
    tables = (m for m in loaded.anatomy.body.modules() if isinstance(m, nn.Embedding))
    words = {id(stack.embedding) for stack in loaded.anatomy.stacks.values()}
    positions = (m for m in tables if id(m) not in words and m.num_embeddings == stated)
    return max((m.padding_idx + 1 for m in positions if m.padding_idx is not None), default=0)


def check_lengths(loaded: LoadedModel, prompts: PromptSet, decoder: str = "start") -> None:
    """Refuse prompts that the model cannot read in one piece.

    Parameters
    ----------
    decoder : str
        What the decoder of an encoder-decoder reads, a key of `DECODER_POLICIES`; other models ignore it.

    Raises
    ------
    BabelScopeError
        Naming the longest offending prompt: item, language, tokens and limit.
    """
    encoded = encode_prompts(loaded.tokenizer, prompts.prompts)
    if not loaded.ref.n_encoder_layers:
        _check_lengths(prompts, encoded, "", *context_length(loaded))
        return
    _check_lengths(prompts, encoded, "", *context_length(loaded, "enc"))
    beside = decoder_tokens(loaded, decoder, prompts.prompts, encoded)
    assert beside is not None
    _check_lengths(prompts, beside, " in the decoder", *context_length(loaded, "dec"))


def _check_lengths(prompts: PromptSet, read: Sequence[Encoded], where: str, limit: int | None, who: str) -> None:
    lengths = [len(e) for e in read]
    too_long = [i for i, n in enumerate(lengths) if limit is not None and n > limit]
    if too_long:
        worst = max(too_long, key=lambda i: lengths[i])
        prompt = prompts.prompts[worst]
        raise BabelScopeError(
            f"item {prompt.item!r} in {prompt.language!r} has {lengths[worst]:,} tokens{where}, {who} allows {limit:,} "
            f"({len(too_long)} prompts are too long)",
            "shorten these prompts or name a model with a longer context",
        )
