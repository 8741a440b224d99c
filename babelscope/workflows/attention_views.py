"""Items of a store as their tokens, beside the attention that was captured: for the report."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store import ActivationStore
from babelscope.errors import BabelScopeError
from babelscope.reports.attention_view import AttendedText, AttentionView, pieces_of
from babelscope.workflows.model_folders import model_path
from babelscope.workflows.signals import Note

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SITE, POSITION = "attn.pattern", "last"

# What a page can hold: numbers of one item in one language, and items.
MOST_WEIGHTS, MOST_ITEMS, MOST_LANGUAGES = 40_000, 3, 6


def attention_views(
    store: ActivationStore, *, model: str | None = None, note: Note = lambda _: None
) -> list[AttentionView]:
    """Items of a store with the attention of their last token: the first of each group, in the first languages.

    Parameters
    ----------
    store : ActivationStore
        With `attn.pattern` at `last` and with texts; without them there are no views.
    model : str, optional
        Where the tokenizer is now. Default: where the store says that the model was.
    note : callable, optional
        Told where there is attention and no tokenizer to read it with.
    """
    if SITE not in store.sites or not store.has_texts or POSITION not in map(str, store.plan.positions):
        return []
    try:
        tokenizer = _tokenizer(store, model or store.plan.model.source)
    except BabelScopeError as error:
        note(f"attention of single items is not drawn: {error.problem}")
        return []
    chosen = store.select(SITE, languages=store.languages[:MOST_LANGUAGES], position=POSITION)
    return [_view(store, tokenizer, item, chosen.languages) for item in _first_of_groups(store, chosen.items)]


def _tokenizer(store: ActivationStore, source: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of the capture.

    Raises
    ------
    BabelScopeError
        If it is not found there, or is another one.
    """
    from transformers import AutoTokenizer

    from babelscope.hooks.fingerprints import tokenizer_sha256

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_path(source))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BabelScopeError(f"no tokenizer in {source}: {reason}", "say with --model where it is now") from None
    if tokenizer_sha256(tokenizer) != store.plan.model.tokenizer_sha256 or not tokenizer.is_fast:
        raise BabelScopeError(f"{source} has another tokenizer than the capture", "say with --model where it is now")
    return tokenizer


def _first_of_groups(store: ActivationStore, items: tuple[str, ...]) -> list[str]:
    table = store.covariates.reindex(list(items))
    by = next((name for name in ("demand", "task", "dataset") if name in table), None)
    firsts = list(items[:1]) if by is None else [str(part.index[0]) for _, part in table.groupby(by, sort=False)]
    return firsts[:MOST_ITEMS]


def _view(
    store: ActivationStore, tokenizer: "PreTrainedTokenizerBase", item: str, languages: tuple[str, ...]
) -> AttentionView:
    from babelscope.hooks.tokens import encode_prompts

    found = store.select(SITE, languages=languages, items=[item], position=POSITION)
    values = found.numpy().astype(np.float32)  # (layer, language, item, head, key), or without layers for one
    weights = values.reshape(len(found.layers), len(languages), *values.shape[-2:])
    texts = []
    for k, language in enumerate(languages):
        prompt = next(p for p in store.prompts.of(language) if p.item == item)
        encoded = encode_prompts(tokenizer, [prompt])[0]
        pieces, of_token = pieces_of(prompt.text, encoded.spans or ())
        summed = _by_piece(weights[:, k, :, : len(of_token)], of_token, len(pieces))
        texts.append(AttendedText(language, tuple(pieces), summed))
    layers = [int(layer) for layer in found.layers if layer is not None]
    most = max(1, MOST_WEIGHTS // max(1, texts[0].weights[0].size))
    if len(layers) > most:  # layers from the first to the last
        kept = np.linspace(0, len(layers) - 1, most).round().astype(int)
        layers = [layers[i] for i in kept]
        texts = [AttendedText(t.language, t.pieces, t.weights[kept]) for t in texts]
    return AttentionView(item, tuple(layers), tuple(texts))


def _by_piece(weights: NDArray[np.float32], of_token: list[int], n_pieces: int) -> NDArray[np.float32]:
    """(layer, head, token) summed to (layer, head, piece)."""
    belongs = np.zeros((len(of_token), n_pieces), np.float32)
    belongs[np.arange(len(of_token)), of_token] = 1.0
    return weights @ belongs
