"""What the tokens of a vocabulary stand for: the beginning of a word, and the script they are written in."""

from transformers import PreTrainedTokenizerBase

from babelscope.datasets.scripts import main_script

# Pieces of a character; tokens that no text is made of.
FRAGMENT, SPECIAL = "byte fragment", "special"


def first_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> frozenset[int]:
    """Tokens that a text begins with, with and without a space before it; empty for a text of nothing but spaces.

    A token that is nothing but a space says nothing of the text, so the one behind it counts. Characters outside the
    vocabulary may be split into bytes: then the first token is a piece of the first character.
    """
    text = text.strip()
    if not text:
        return frozenset()
    whole = tokenizer.get_vocab().get(text)  # where every text gets a space, encoding never yields the bare word
    found = set() if whole is None else {whole}
    for spelled in (text, " " + text):
        ids: list[int] = tokenizer(spelled, add_special_tokens=False, verbose=False)["input_ids"]
        found |= set(next(([i] for i in ids if not _is_space(tokenizer, i)), []))
    return frozenset(found - {tokenizer.unk_token_id})


def _is_space(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    text = str(tokenizer.decode([token]))
    # Some decoders drop the space at the beginning of a text, and with it the whole of such a token.
    return not text.strip() and token not in tokenizer.all_special_ids


def token_scripts(tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[str, ...]:
    """Unicode script of every token: that of most of its letters, or `NO_SCRIPT`, `FRAGMENT` or `SPECIAL`.

    Parameters
    ----------
    size : int
        Tokens that the unembedding knows; those beyond the tokenizer's are special.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    known = min(size, len(tokenizer))
    texts = tokenizer.batch_decode([[i] for i in range(known)], clean_up_tokenization_spaces=False)
    scripts = [SPECIAL if i in special else _script(text) for i, text in enumerate(texts)]
    return (*scripts, *[SPECIAL] * (size - known))


def _script(token: str) -> str:
    return FRAGMENT if "\ufffd" in token else main_script([token])
