"""A WordPiece tokenizer for the encoder organism: each word of the generated text is one token."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from babelscope.datasets.words import wording

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_encoder_tokenizer(texts: Iterable[str], languages: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Collect the tokens of texts; characters that occur in none are unknown.

    The vocabulary holds every character, alone and as a continuation; the names and adjectives of the wording, likewise
    (words of Chinese stand inside of sentences without spaces); and the most frequent words between spaces and marks.

    Parameters
    ----------
    texts : iterable of str
    languages : sequence of str
        Whose names and adjectives are tokens.
    vocabulary : int
        Largest number of tokens; words beyond it are split into characters.
    """
    split = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in split.pre_tokenize_str(text))
    characters = sorted({character for word in words for character in word})
    aligned = [form for code in languages for form in _forms(code)]
    tokens = dict.fromkeys(SPECIAL)
    tokens |= dict.fromkeys([*characters, *(f"##{c}" for c in characters)])
    tokens |= dict.fromkeys(token for form in aligned for token in (form, f"##{form}"))
    tokens |= dict.fromkeys(word for word, _ in words.most_common() if not _has_han(word))
    ids = {token: i for i, token in enumerate(list(tokens)[:vocabulary])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:0 [SEP]:0",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers leaves its constructor untyped
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side="right",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def _forms(language: str) -> Iterable[str]:
    words = wording(language)
    for word in (*words.adjectives.values(), *words.names.values()):
        yield from (form for form in (str(word), *word.forms.values()) if " " not in form)


def _has_han(word: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in word)
