"""A byte-level BPE tokenizer for the organisms, in which every number up to 999 is one token."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<bos>", "<eos>")


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer on texts; it prepends `<bos>` and reads any text without unknown tokens.

    Parameters
    ----------
    texts : iterable of str
    vocabulary : int
        Number of tokens, special ones and the 256 bytes included.
    """
    tokenizer = Tokenizer(models.BPE())
    # A space is split off before digits, so that "7" is the same token wherever it stands.
    digits = Regex(r" ?\p{L}[\p{L}\p{M}]*| ?[^\s\p{L}\p{N}]+|\d{1,3}|\s")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(digits, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_with_numbers(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers leaves its constructor untyped
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def _with_numbers(texts: Iterable[str]) -> Iterable[str]:
    yield from texts
    # Often enough that each number is merged into one token before rare words are.
    for _ in range(200):
        yield " ".join(str(n) for n in range(1000))
