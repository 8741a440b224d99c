"""Settings of mixed-language multiple choice: which cells of an item are in which language, and which really differ.

A cell is the question or one option. A setting is captured as a "language" of the same items: `gt_de` has the right
option in German and all else in the base language (arXiv:2406.16135, section 3.1).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from babelscope.activations_store import ActivationStore
from babelscope.analyses.statistics import Floats
from babelscope.schema import Prompt

BASE = "base"
KINDS = {
    BASE: "everything in one language, that of all cells which a setting leaves alone",
    "full": "everything in another language",
    "question": "the question in another language",
    "options": "all options in another language",
    "gt": "the right option in another language",
    "gt_question": "the right option and the question in another language",
    "onewrong": "one wrong option in another language",
    "threewrong": "all wrong options in another language",
    "mixup": "the question and every option each in another one of several languages",
}
ALL_LANGUAGES = "*"

_CODE = re.compile(
    r"(?:(?P<kind>full|gt_question|question|options|gt|onewrong|threewrong)_(?P<language>[^+]+)|(?P<mixup>mixup))"
    r"(?:\+(?P<mitigation>.+))?\Z"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A code of a store, taken apart.

    Parameters
    ----------
    code : str
        As the store has it, such as `gt_question_de+awareness-1`.
    kind : str
        A key of `KINDS`.
    language : str
        The other language; that of the base in the base, `*` in mixup.
    mitigation : str
        What was done to help, as `awareness-1`; "" for nothing.
    """

    code: str
    kind: str
    language: str
    mitigation: str = ""


def settings_of(codes: Iterable[str], base: str = "en") -> dict[str, Setting]:
    """The settings among the codes of a store, in their order; languages that are none are left out."""
    found = {}
    for code in codes:
        plain, _, mitigation = code.partition("+")
        match = _CODE.match(code)
        if plain == base:
            found[code] = Setting(code, BASE, base, mitigation)
        elif match is not None:
            kind, language = match["kind"] or "mixup", match["language"] or ALL_LANGUAGES
            found[code] = Setting(code, kind, language, match["mitigation"] or "")
    return found


def is_setting(code: str) -> bool:
    """Whether a code names a setting other than the base."""
    return _CODE.match(code) is not None


def has_settings(store: ActivationStore) -> bool:
    """Whether languages of a store are settings of mixed-language multiple choice."""
    return any(map(is_setting, store.languages))


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of every item in one setting.

    Parameters
    ----------
    foreign : ndarray
        (item, cell): 1 where the cell is in another language than the base, 0 where not, NaN where there is none. The
        first cell is the question, the others are the options in the order shown.
    changed : ndarray
        (item, cell): of cells that are foreign, 1 where their text is another than in the base, and 0 where it is the
        same, as numbers and names can be; NaN for other cells, and where texts or the item's base prompt are not kept.
    languages : frozenset of str
        Other languages than the base, in any cell.
    """

    foreign: Floats
    changed: Floats
    languages: frozenset[str]


def cells_of(store: ActivationStore, base: str = "en") -> Mapping[str, Cells]:
    """The cells of the items of a store, in row order, by setting.

    Languages of cells are those of the segments `question`, `option-1`, ... of the prompts.
    """
    number = {item: i for i, item in enumerate(store.items)}
    codes = settings_of(store.languages, base)
    n_cells = 1 + max((len(p.letters or p.options) for p in store.records), default=0)
    plain = {p.item: p for p in store.records if p.language == base}
    shape = (len(number), n_cells)
    foreign, changed = ({code: np.full(shape, np.nan) for code in codes} for _ in range(2))
    languages: dict[str, set[str]] = {code: set() for code in codes}
    for prompt in store.records:
        if prompt.language not in codes:
            continue
        row, original = number[prompt.item], plain.get(prompt.item)
        spoken = {s.name: s.language for s in prompt.segments}
        for cell in range(n_cells):
            name = f"option-{cell}" if cell else "question"
            if name not in spoken:
                continue
            is_foreign = spoken[name] != base
            foreign[prompt.language][row, cell] = is_foreign
            if is_foreign:
                languages[prompt.language].add(spoken[name])
                changed[prompt.language][row, cell] = _differs(prompt, original, name)
    return {code: Cells(foreign[code], changed[code], frozenset(languages[code])) for code in codes}


def _differs(prompt: Prompt, original: Prompt | None, name: str) -> float:
    if original is None or not prompt.text or not original.text:
        return float("nan")
    return float(prompt.segment(name).strip() != original.segment(name).strip())
