"""Multiple-choice prompts whose question and options are in different languages, as settings of one set.

Chua et al. (2024), arXiv:2406.16135: seven mixed settings beside the whole question in English and in other languages.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from babelscope.datasets.choice_cells import QUESTION, check_together, option_name, replaced, with_cells
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Prompt, PromptSet

# Setting -> which cells are in another language. All but mixup exist once for each other language: `gt_de`.
SETTINGS: Mapping[str, str] = {
    "full": "question and options in another language; the frame around them stays",
    "question": "the question",
    "options": "all options",
    "gt": "the right option",
    "gt_question": "the right option and the question",
    "onewrong": "one wrong option",
    "threewrong": "all wrong options",
    "mixup": "question and options each in another language of all",
}
MIXUP = "mixup"


def mixed_choice(
    prompts: PromptSet, languages: Sequence[str], *, base: str = "en", settings: Sequence[str] | None = None,
    seed: int = 0,
) -> PromptSet:  # fmt: skip
    """The items of a parallel multiple-choice set in every setting; each setting is a language of its own.

    Instruction, letters, cue and what stands between them stay in the base language in every setting, `full` included,
    as published: `full_de` is not the language `de`, in which the frame is German too. What is drawn (which wrong
    option, which language where) depends on seed, item and setting alone, so that neither other items nor the order of
    the languages matter, and `onewrong` takes the same option in every language.

    In `mixup` each cell, the question or an option, is in another one of all the languages, the base among them like
    any other. Where there are fewer languages than cells, they repeat as evenly as possible. How the published version
    with sixteen languages draws is not known.

    Parameters
    ----------
    prompts : PromptSet
        With options, gold and a segment `question`.
    languages : sequence of str
        Other languages than the base, each in the set; the base may be among them.
    base : str
    settings : sequence of str, optional
        Of `SETTINGS`. Default: all.
    seed : int

    Returns
    -------
    PromptSet
        Languages: the base, then the codes of the settings. Segments `question` and `option-1`, `option-2`, ... are the
        cells, each with its language. Items that a language lacks are left out; `source` says how many.

    Raises
    ------
    BabelScopeError
        If a language or setting is unknown, the texts of an item do not belong together, or one has no cells.
    """
    others = [code for code in dict.fromkeys(languages) if code != base]
    for code in (base, *others):
        if code not in prompts.languages:
            raise unknown_name("language in these prompts", code, prompts.languages)
    if not others:
        raise BabelScopeError(f"there is no language to mix with {base}", f"name others, as --languages {base},de,fr")
    chosen = list(dict.fromkeys(settings or SETTINGS))
    for setting in chosen:
        if setting not in SETTINGS:
            raise unknown_name("setting", setting, SETTINGS)
    by_key = {(p.item, p.language): p for p in prompts.prompts if p.language in (base, *others)}
    whole = [i for i in prompts.items if all((i, g) in by_key for g in (base, *others))]
    if not whole:
        raise BabelScopeError(
            f"prompt set {prompts.name!r}: no item is in all of {', '.join((base, *others))}",
            "join translations by a key that is equal in all of them",
        )
    items = [_Item({g: by_key[item, g] for g in (base, *others)}, base) for item in whole]
    made = [item.base for item in items]
    for setting in chosen:
        for code, language in codes_of(setting, others):
            made += [item.in_setting(setting, code, language, seed) for item in items]
    source = {
        "mixed_choice": {"languages": others, "base": base, "settings": chosen, "seed": seed},
        "items_left_out": len(prompts.items) - len(whole), "of": dict(prompts.source),
    }  # fmt: skip
    return PromptSet(prompts.name, tuple(made), source)


def codes_of(setting: str, others: Sequence[str]) -> list[tuple[str, str]]:
    """Codes of a setting with the language of each; "" for mixup, which has all."""
    return [(MIXUP, "")] if setting == MIXUP else [(f"{setting}_{language}", language) for language in others]


class _Item:
    """One item in all languages, its cells located."""

    def __init__(self, prompts: Mapping[str, Prompt], base: str) -> None:
        self.base = with_cells(prompts[base])
        self._prompts = prompts
        for prompt in prompts.values():
            check_together(self.base, prompt)

    def in_setting(self, setting: str, code: str, language: str, seed: int) -> Prompt:
        """The item with some cells in other languages."""
        rng = _rng(seed, self.base.item, setting)
        n = len(self.base.options)
        if setting == MIXUP:
            spoken = _spread(sorted(self._prompts), n + 1, rng)
        else:
            foreign = _foreign(setting, n, self.base.gold or 0, rng)
            spoken = [language if cell in foreign else self.base.language for cell in range(n + 1)]
        texts = {}
        for cell, said in enumerate(spoken):
            if said != self.base.language:
                prompt = self._prompts[said]
                name = option_name(cell) if cell else QUESTION
                text = prompt.options[cell - 1] if cell else prompt.segment(QUESTION)
                texts[name] = (text.strip(), said)
        return replaced(self.base, code, texts)


def _foreign(setting: str, n_options: int, gold: int, rng: np.random.Generator) -> set[int]:
    """Cells in another language: 0 is the question, the others are the options."""
    options = range(1, n_options + 1)
    right, wrong = gold + 1, [cell for cell in options if cell != gold + 1]
    return {
        "full": {0, *options},
        "question": {0},
        "options": {*options},
        "gt": {right},
        "gt_question": {0, right},
        "onewrong": {int(rng.choice(wrong))} if wrong else set(),
        "threewrong": {*wrong},
    }[setting]


def _spread(languages: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    """A language for each cell: none twice while there are others, and any order of them as likely as another."""
    drawn: list[str] = []
    while len(drawn) < n:
        drawn += [languages[i] for i in rng.permutation(len(languages))]
    return [drawn[i] for i in rng.permutation(n)]


def _rng(seed: int, item: str, setting: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/{item}/{setting}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
