"""Items with their answers, shown before a multiple-choice question, each piece in its own language."""

from collections.abc import Sequence
from dataclasses import replace

from babelscope.datasets.choice_cells import CUE, OPTIONS, cells, is_option
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet, Segment

# Parts of what is said once, before everything.
HEAD = frozenset({"instruction", "subject"})
# Covariates by which demonstrations are of the same kind as a question, the first that the question has.
KINDS = ("subject", "rule", "task")

# Text and its language.
Piece = tuple[str, str]


def body_start(prompt: Prompt) -> int:
    """Where a prompt begins behind its head: the line of its first segment that is not of `HEAD`."""
    first = min(s.start for s in prompt.segments if s.name not in HEAD)
    return prompt.text.rfind("\n", 0, first) + 1


def cue_start(prompt: Prompt) -> int:
    """Where that begins which the answer follows: the segment `cue`, or what else stands behind the options.

    Raises
    ------
    BabelScopeError
        If nothing does.
    """
    cue = next((s.start for s in prompt.segments if s.name == CUE and not prompt.text[s.stop :].strip()), None)
    if cue is not None:
        return cue
    end = next(s.stop for s in prompt.segments if s.name == OPTIONS)
    behind = prompt.text[end:]
    if not behind.strip():
        raise BabelScopeError(
            f"item {prompt.item!r} has nothing behind its options that an answer could follow",
            'end the text of the mapping in a cue, as "{question}\\n{options}\\nAnswer:"',
        )
    return end + len(behind) - len(behind.lstrip())


def put_in(prompt: Prompt, place: int, pieces: Sequence[Piece], name: str, behind: str) -> Prompt:
    """The prompt with pieces, each a segment of that name, and a text behind them put in at a place."""
    text, new = "", []
    for piece, language in pieces:
        new.append(Segment(name, place + len(text), place + len(text) + len(piece), language))
        text += piece
    text += behind
    moved = [
        replace(s, start=s.start + len(text), stop=s.stop + len(text)) if s.start >= place else s
        for s in prompt.segments
    ]
    segments = sorted([*moved, *new], key=lambda s: (s.start, -s.stop))
    return replace(prompt, text=prompt.text[:place] + text + prompt.text[place:], segments=tuple(segments))


class Demonstrations:
    """Items to show before the questions of a set, in the same settings as these.

    Parameters
    ----------
    shown : PromptSet
        Of `mixed_choice`.
    asked : PromptSet
        The questions.
    base : str
        Language of the frame of both.
    shots : int
        How many are shown: the first ones of the kind of a question (`KINDS`), in the order of the set.

    Raises
    ------
    BabelScopeError
        If an item is in both sets, by its key, or by context, question and right answer in some setting, since it would
        give the answer away whatever its wrong options are; or if `shots` is not 1 or more.
    """

    def __init__(self, shown: PromptSet, asked: PromptSet, base: str, shots: int) -> None:
        if shots < 1:
            raise BabelScopeError(f"{shots} demonstrations show nothing", "ask for --shots 1 or more")
        self._by_key = {(p.item, p.language): p for p in shown.prompts}
        self._facts = {p.item: p.covariates for p in shown.prompts}
        self._base, self._shots = base, shots
        items, texts = frozenset(asked.items), {_content(p) for p in asked.prompts}
        for prompt in shown.prompts:
            if prompt.item in items or _content(prompt) in texts:
                raise BabelScopeError(
                    f"item {prompt.item!r} of the demonstrations is among the questions, too",
                    "demonstrate with other items, as --demos with the file of a train or dev split",
                )

    def before(self, prompt: Prompt, setting: str) -> Prompt:
        """The prompt behind demonstrations in a setting: each is its text and, behind the cue, the right label."""
        pieces: list[Piece] = []
        for item in self._chosen(prompt):
            pieces += [*_solved(self._of(item, setting), self._base), ("\n\n", self._base)]
        return put_in(prompt, body_start(prompt), pieces[:-1], "demonstrations", "\n\n")

    def restating(self, prompt: Prompt, setting: str, line: str) -> Prompt:
        """The prompt behind demonstrations that say it all again in the base language before they answer.

        A demonstration is its question and options in a setting, `line` on a line of its own, question and options in
        the base language, and on the next line the cue and the right label. The prompt ends in `line` and a line
        break instead of its cue.
        """
        pieces: list[Piece] = []
        for item in self._chosen(prompt):
            told = self._of(item, setting)
            pieces += _pieces(told, body_start(told), len(told.text[: cue_start(told)].rstrip()), self._base)
            pieces += [(f"\n{line}\n", self._base), *_solved(self._of(item, self._base), self._base)]
            pieces.append(("\n\n", self._base))
        end = cue_start(prompt)
        text = prompt.text[:end].rstrip()
        again = Segment("restated", len(text) + 1, len(text) + 1 + len(line), self._base)
        kept = tuple(s for s in prompt.segments if s.stop <= end)
        asked = replace(prompt, text=f"{text}\n{line}\n", segments=(*kept, again))
        return put_in(asked, body_start(asked), pieces[:-1], "demonstrations", "\n\n")

    def _chosen(self, prompt: Prompt) -> list[str]:
        kind = next((k for k in KINDS if k in prompt.covariates), None)
        items = [i for i, facts in self._facts.items() if kind is None or facts.get(kind) == prompt.covariates[kind]]
        if len(items) < self._shots:
            what = f" of {kind} {prompt.covariates[kind]!r}" if kind else ""
            raise BabelScopeError(
                f"{len(items)} items{what} to demonstrate with, {self._shots} are asked for",
                "give more items with --demos, or ask for fewer --shots",
            )
        return items[: self._shots]

    def _of(self, item: str, setting: str) -> Prompt:
        if (item, setting) not in self._by_key:
            raise BabelScopeError(
                f"the demonstrations have no {item!r} in the setting {setting!r}",
                "mix them with the same languages and settings as the questions",
            )
        return self._by_key[item, setting]


def _content(prompt: Prompt) -> tuple[str, ...]:
    """Context and question, and the right answer, whatever frame and wrong options are around them."""
    told = [s for s in prompt.segments if s.name not in HEAD | {OPTIONS, CUE} and not is_option(s.name)]
    texts = [*(prompt.text[s.start : s.stop] for s in told), prompt.options[prompt.gold or 0]]
    return tuple(" ".join(text.casefold().split()) for text in texts)


def _solved(prompt: Prompt, base: str) -> list[Piece]:
    """What a prompt says behind its head, and behind its cue the label of the right option."""
    cue_start(prompt)
    label = prompt.letters[prompt.gold or 0]
    space = "" if prompt.text[-1:].isspace() else " "
    return [*_pieces(prompt, body_start(prompt), len(prompt.text), base), (space + label, base)]


def _pieces(prompt: Prompt, start: int, stop: int, base: str) -> list[Piece]:
    """A part of a prompt cut at the edges of its cells."""
    found: list[Piece] = []
    for cell in cells(prompt):
        found += [(prompt.text[start : cell.start], base), (prompt.text[cell.start : cell.stop], cell.language)]
        start = cell.stop
    found.append((prompt.text[start:stop], base))
    return [piece for piece in found if piece[0]]
