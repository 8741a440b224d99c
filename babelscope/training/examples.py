"""Prompts and texts as tokens to train on: what is read, and from where on it is to be predicted."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from babelscope.errors import BabelScopeError
from babelscope.qcross.token_languages import languages_of
from babelscope.schema import Prompt, PromptSet, Segment

CONTEXT, QUESTION = "context", "question"


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens of one example.

    Parameters
    ----------
    ids : tuple of int
    start : int
        First token that is to be predicted; those before are only read.
    label : int
        Class of the whole, where a classifier is trained; -1 elsewhere.
    languages : tuple of int
        Number of the language of each token, for models that read it; empty elsewhere.
    """

    ids: tuple[int, ...]
    start: int = 0
    label: int = -1
    languages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Examples:
    """All examples of a run, and what became of those that were too long."""

    rows: tuple[Example, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.rows[index]

    @property
    def tokens(self) -> int:
        """Tokens that are read in one epoch, without padding."""
        return sum(len(row.ids) for row in self.rows)


def answer_of(prompt: Prompt) -> str:
    """What should follow a prompt, with its leading space: the letter of the right option, else the answer's text."""
    if prompt.gold is not None and prompt.letters:
        return f" {prompt.letters[prompt.gold]}"
    return f" {prompt.answer}" if prompt.answer else ""


def responses(
    prompts: PromptSet, tokenizer: PreTrainedTokenizerBase, max_length: int, over_length: str, *, end_of_text: bool
) -> Examples:
    """Prompts with the answers behind them; only these, and the end of the text where asked, are to be predicted.

    Raises
    ------
    BabelScopeError
        If a prompt has no answer, or is too long and that is refused.
    """
    answers = [answer_of(p) for p in prompts.prompts]
    _every_one_answered(prompts, answers, "a gold option or an answer")
    said = tokenizer(answers, add_special_tokens=False)["input_ids"]
    end = [tokenizer.eos_token_id] if end_of_text and tokenizer.eos_token_id is not None else []
    rows = [
        Example((*ids, *b, *end), len(ids), -1, (*numbers, *numbers[-1:] * (len(b) + len(end))))
        for (ids, numbers), b in zip(_read(prompts, tokenizer, pairs=False), said, strict=True)
    ]
    return _fitted(rows, max_length, over_length, lambda i: _name(prompts.prompts[i]))


def classes(prompts: PromptSet, tokenizer: PreTrainedTokenizerBase, max_length: int, over_length: str) -> Examples:
    """Prompts with the number of the right option as their class.

    Where a prompt has a `context` and a `question`, both are read as a pair, with a separator between them
    (arXiv:2310.15258); else its text is.

    Raises
    ------
    BabelScopeError
        If a prompt has no gold option, their number differs, or one is too long and that is refused.
    """
    _every_one_answered(prompts, ["x" if p.gold is not None else "" for p in prompts.prompts], "a gold option")
    numbers = Counter(len(p.options or p.letters) for p in prompts.prompts)
    if len(numbers) > 1:
        odd = next(p for p in prompts.prompts if len(p.options or p.letters) != numbers.most_common(1)[0][0])
        raise BabelScopeError(
            f"{_name(odd)} has {len(odd.options or odd.letters)} options, others have {numbers.most_common(1)[0][0]}",
            "train a classifier on prompts with the same classes",
        )
    rows = [
        Example(ids, 0, int(p.gold or 0), numbers)
        for (ids, numbers), p in zip(_read(prompts, tokenizer, pairs=True), prompts.prompts, strict=True)
    ]
    return _fitted(rows, max_length, over_length, lambda i: _name(prompts.prompts[i]))


def pairs(prompts: PromptSet, tokenizer: PreTrainedTokenizerBase, max_length: int, over_length: str) -> Examples:
    """Two texts in two languages each, as a language model reads them; every token is to be predicted.

    Raises
    ------
    BabelScopeError
        If a prompt has not both the segments `context` and `question`, or is in one language.
    """
    for p in prompts.prompts:
        if len({s.language for s in p.segments if s.name in (CONTEXT, QUESTION) and s.start < s.stop}) < 2:
            raise BabelScopeError(
                f"{_name(p)} has no context and question in two languages",
                "name pairs as data.languages, such as en-fr, or a file that `data pairs` wrote",
            )
    found = _read(prompts, tokenizer, pairs=True, on_lines=tokenizer.mask_token_id is None)
    rows = [Example(ids, 0, -1, numbers) for ids, numbers in found]
    return _fitted(rows, max_length, over_length, lambda i: _name(prompts.prompts[i]))


def _read(
    prompts: PromptSet, tokenizer: PreTrainedTokenizerBase, *, pairs: bool, on_lines: bool = False
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Tokens of each prompt and the numbers of their languages.

    Parameters
    ----------
    pairs : bool
        Read context and question alone, where all prompts have both, as the tokenizer joins a pair.
    on_lines : bool
        Or a line each, as decoders read, whose tokenizers have no separator.
    """
    codes = sorted({s.language for p in prompts.prompts for s in p.segments} | {*prompts.languages})
    number = {code: i for i, code in enumerate(codes)}
    texts = [(p.segment(CONTEXT), p.segment(QUESTION)) for p in prompts.prompts]
    as_pairs = pairs and all(a and b for a, b in texts)
    if as_pairs and not on_lines:
        found = tokenizer([a for a, _ in texts], [b for _, b in texts])
        spoken = [
            languages_of(p, _pair_spans(p, found.sequence_ids(i)) if tokenizer.is_fast else [])
            for i, p in enumerate(prompts.prompts)
        ]
    else:
        lines = [f"{a}\n{b}" if as_pairs else p.text for p, (a, b) in zip(prompts.prompts, texts, strict=True)]
        found = tokenizer(lines, return_offsets_mapping=tokenizer.is_fast)
        offsets = found["offset_mapping"] if tokenizer.is_fast else [[] for _ in lines]
        spoken = [
            languages_of(_shortened(p) if as_pairs else p, spans)
            for p, spans in zip(prompts.prompts, offsets, strict=True)
        ]
    return [
        (tuple(ids), tuple(number[code] for code in languages))
        for ids, languages in zip(found["input_ids"], spoken, strict=True)
    ]


def _pair_spans(prompt: Prompt, texts: Sequence[int | None]) -> list[tuple[int, int]]:
    """A span for each token that lies in the segment which it was read from; none for separators."""
    first, second = (next(s.start for s in prompt.segments if s.name == name) for name in (CONTEXT, QUESTION))
    return [(0, 0) if text is None else ((first, second)[text], (first, second)[text] + 1) for text in texts]


def _shortened(prompt: Prompt) -> Prompt:
    """The prompt whose text is that of its context and its question alone, a line each."""
    first, second = prompt.segment(CONTEXT), prompt.segment(QUESTION)
    language = {name: next(s.language for s in prompt.segments if s.name == name) for name in (CONTEXT, QUESTION)}
    cut = len(first)
    spans = (Segment(CONTEXT, 0, cut, language[CONTEXT]),
             Segment(QUESTION, cut + 1, cut + 1 + len(second), language[QUESTION]))  # fmt: skip
    return replace(prompt, text=f"{first}\n{second}", segments=spans)


def documents(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Examples:
    """Plain texts, one after the other, in pieces of at most `max_length` tokens; every token is to be predicted."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    rows = []
    for ids in tokenizer(list(texts))["input_ids"]:
        whole = (*ids, *end)
        rows += [Example(whole[i : i + max_length]) for i in range(0, len(whole), max_length)]
    rows = [row for row in rows if len(row.ids) > 1]  # a single token predicts nothing
    if not rows:
        raise BabelScopeError("the text files hold no text", "name files with one document a line")
    return Examples(tuple(rows))


def _every_one_answered(prompts: PromptSet, answers: Sequence[str], what: str) -> None:
    without = [p for p, answer in zip(prompts.prompts, answers, strict=True) if not answer]
    if without:
        raise BabelScopeError(
            f"{len(without)} of {len(prompts)} prompts lack {what}, {_name(without[0])} among them",
            "give the field `gold` or `answer`, or leave these items out",
        )


def _fitted(rows: Sequence[Example], max_length: int, policy: str, name: Callable[[int], str]) -> Examples:
    long = [i for i, row in enumerate(rows) if len(row.ids) > max_length]
    if not long:
        return Examples(tuple(rows))
    if policy == "refuse":
        worst = max(long, key=lambda i: len(rows[i].ids))
        raise BabelScopeError(
            f"{len(long)} of {len(rows)} examples are longer than {max_length} tokens, {name(worst)} with "
            f"{len(rows[worst].ids):,}",
            "raise optimization.max_length, or set optimization.over_length to truncate or drop",
        )
    if policy == "drop":
        kept = tuple(row for row in rows if len(row.ids) <= max_length)
        if not kept:
            raise BabelScopeError(f"all examples are longer than {max_length} tokens", "raise optimization.max_length")
        return Examples(kept, (f"{len(long)} of {len(rows)} examples are longer than {max_length} tokens: left out",))
    cut = tuple(_truncated(row, max_length) for row in rows)
    return Examples(cut, (f"{len(long)} of {len(rows)} examples are cut to their last {max_length} tokens",))


def _truncated(row: Example, max_length: int) -> Example:
    if len(row.ids) <= max_length:
        return row
    lost = len(row.ids) - max_length
    if row.label >= 0:  # the first token is the one that a classifier reads
        lost += 1
        return Example((row.ids[0], *row.ids[lost:]), 0, row.label, (*row.languages[:1], *row.languages[lost:]))
    return Example(row.ids[lost:], max(0, row.start - lost), -1, row.languages[lost:])


def _name(prompt: Prompt) -> str:
    return f"item {prompt.item!r} in {prompt.language!r}"


def read_texts(files: Sequence[str]) -> Iterator[str]:
    """Lines of files that hold something.

    Raises
    ------
    BabelScopeError
        If a file cannot be read or is not UTF-8.
    """
    for file in files:
        try:
            with open(file, encoding="utf-8") as lines:
                yield from (line.strip() for line in lines if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
            raise BabelScopeError(f"text file {file} {why}", "name a readable file in UTF-8") from None
