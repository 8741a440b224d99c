"""Prompts: the same items in several languages, in row order, with everything known about them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema.glance import Glance, Sample, counted, listed, shortened

Scalar: TypeAlias = str | int | float | bool

LETTERS = ("A", "B", "C", "D", "E", "F", "G", "H")


@dataclass(frozen=True, slots=True)
class Segment:
    """A span of characters `[start, stop)` of a prompt with a role and a language of its own."""

    name: str
    start: int
    stop: int
    language: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One item in one language.

    Parameters
    ----------
    item : str
        Identifier shared by the translations of one question.
    language : str
        Language code, such as `sw`.
    text : str
        What the model reads; without a chat template, unless one was asked for (`hooks.as_chat`).
    segments : tuple of Segment
        Character spans: instruction, context, question, options, cue.
    letters, options : tuple of str
        Option labels as shown and option texts, in the order shown; empty for open questions.
    gold : int or None
        Index of the right option.
    answer : str
        The right answer as text ("" where unknown).
    covariates : mapping
        Facts about the item that are equal in all languages: task, rule, depth, demand, template.
    """

    item: str
    language: str
    text: str
    segments: tuple[Segment, ...] = ()
    letters: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    gold: int | None = None
    answer: str = ""
    covariates: Mapping[str, Scalar] = field(default_factory=dict)

    def segment(self, name: str) -> str:
        """Text of a segment (its spans joined); "" if the prompt has none of that name."""
        return "".join(self.text[s.start : s.stop] for s in self.segments if s.name == name)

    def to_json(self) -> dict[str, Any]:
        """The prompt as JSON-ready values; `Prompt.from_json` is the inverse."""
        # Field by field: `asdict` copies every value deeply, which took most of the time of hashing a prompt set.
        return {
            "item": self.item,
            "language": self.language,
            "text": self.text,
            "segments": tuple(
                {"name": s.name, "start": s.start, "stop": s.stop, "language": s.language} for s in self.segments
            ),
            "letters": tuple(self.letters),
            "options": tuple(self.options),
            "gold": self.gold,
            "answer": self.answer,
            "covariates": dict(self.covariates),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Prompt":
        """Rebuild a prompt from `to_json`."""
        values = dict(record)
        values["segments"] = tuple(Segment(**s) for s in values.get("segments", ()))
        for name in ("letters", "options"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts in row order: by language, then by item, the same items in the same order everywhere.

    Parameters
    ----------
    name : str
        What the set is called in tables and figures.
    prompts : tuple of Prompt
        At least one; each (item, language) once. A language may lack items.
    source : mapping
        Where the prompts come from (generator, seed, parameters, or file and its hash).
    """

    name: str
    prompts: tuple[Prompt, ...]
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise BabelScopeError(f"prompt set {self.name!r} is empty", "check --limit, --languages and the file")
        counts = Counter((p.item, p.language) for p in self.prompts)
        (item, language), most = counts.most_common(1)[0]
        if most > 1:
            raise BabelScopeError(
                f"prompt set {self.name!r}: item {item!r} occurs {most} times in {language!r}",
                "each item may occur once per language; give repeated items different keys",
            )
        blank = next((p for p in self.prompts if not p.text.strip()), None)
        if blank is not None:
            raise BabelScopeError(
                f"prompt set {self.name!r}: item {blank.item!r} has no text in {blank.language!r}",
                "fill in the text or remove the item",
            )

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return self._glance(4, 1).text()

    def _repr_html_(self) -> str:
        return self._glance(4, 2).html()

    def _glance(self, languages: int, each: int) -> Glance:
        items, codes = self.items, self.languages
        lengths = sorted(len(p.text) for p in self.prompts)
        options = sorted({len(p.options) for p in self.prompts})
        facts = {
            "holds": f"{counted(len(items), 'item')} x {counted(len(codes), 'language')} ({listed(codes, 14)}), "
            f"{counted(len(self), 'prompt')}",
            "lengths": f"{lengths[0]:,} to {lengths[-1]:,} characters, half below {lengths[len(lengths) // 2]:,}",
            "segments": listed(list(dict.fromkeys(s.name for p in self.prompts for s in p.segments))),
            "options": " or ".join(map(str, options)) if options[-1] else "",
            "covariates": listed(list(dict.fromkeys(name for p in self.prompts for name in p.covariates))),
            "source": ", ".join(f"{k} {v}" for k, v in self.source.items() if isinstance(v, str | int | float)),
        }
        return Glance(f"PromptSet {self.name}", facts, (prompt_sample(self.prompts, languages, each),))

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages in order of first mention."""
        return tuple(dict.fromkeys(p.language for p in self.prompts))

    @property
    def items(self) -> tuple[str, ...]:
        """Items in order of first mention."""
        return tuple(dict.fromkeys(p.item for p in self.prompts))

    def of(self, language: str) -> tuple[Prompt, ...]:
        """Prompts of one language in row order."""
        return tuple(p for p in self.prompts if p.language == language)

    def select(self, *, languages: Sequence[str] | None = None, limit: int | None = None) -> "PromptSet":
        """The same set with only some languages (in the order asked for) and the first `limit` items.

        Raises
        ------
        BabelScopeError
            If a language is not in the set, or nothing is left.
        """
        wanted = tuple(dict.fromkeys(languages)) if languages is not None else self.languages
        for language in wanted:
            if language not in self.languages:
                raise unknown_name("language in these prompts", language, self.languages)
        items = set(self.items[:limit] if limit is not None else self.items)
        kept = tuple(p for language in wanted for p in self.of(language) if p.item in items)
        return PromptSet(self.name, kept, self.source)

    def parallel(self) -> "PromptSet":
        """Only the items present in every language, in one common order."""
        have = Counter(p.item for p in self.prompts)
        items = [i for i in self.items if have[i] == len(self.languages)]
        by_key = {(p.item, p.language): p for p in self.prompts}
        return PromptSet(self.name, tuple(by_key[i, g] for g in self.languages for i in items), self.source)

    def digest(self) -> str:
        """Hex sha256 over every prompt in row order: texts, segments, options, gold and covariates."""
        lines = (json.dumps(p.to_json(), sort_keys=True, ensure_ascii=False) for p in self.prompts)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def prompt_sample(prompts: Sequence[Prompt], languages: int = 4, items: int = 2) -> Sample:
    """The first prompts of the first languages, each text in one line, cut where a notebook row would be too long."""
    rows, seen = [], Counter[str]()
    for p in prompts:
        if seen[p.language] < items and (p.language in seen or len(seen) < languages):
            seen[p.language] += 1
            gold = p.letters[p.gold] if p.gold is not None and p.gold < len(p.letters) else p.answer
            rows.append((p.language, gold, shortened(p.text.replace("\n", " / "), 240), p.item))
    return Sample(("language", "right", "text", "item"), tuple(rows), len(prompts))


def concatenate(sets: Iterable[PromptSet]) -> PromptSet:
    """One set out of several; items keep their identifiers, which must not clash.

    Languages that not every set has are refused, since items of one set would miss them.
    """
    parts = list(sets)
    if len(parts) == 1:
        return parts[0]
    languages = parts[0].languages
    for part in parts[1:]:
        if set(part.languages) != set(languages):
            raise BabelScopeError(
                f"prompt sets {parts[0].name!r} and {part.name!r} have different languages",
                f"name the common ones, as --languages {','.join(sorted(set(languages) & set(part.languages)))}",
            )
    prompts = tuple(p for language in languages for part in parts for p in part.of(language))
    return PromptSet("+".join(p.name for p in parts), prompts, {p.name: dict(p.source) for p in parts})
