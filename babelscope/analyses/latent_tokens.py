"""The tokens of a study: those that answers begin with, and those of each script that its prompts are written in."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.latent import AnswerTokens
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt

if TYPE_CHECKING:
    from babelscope.hooks import LoadedModel

# A script in which less than this share of a language's letters is written is not one of the language.
SCRIPT_SHARE = 0.1


def answer_tokens(study: Study, loaded: "LoadedModel") -> AnswerTokens:
    """First tokens of the answers of all items in all languages of a study.

    Raises
    ------
    BabelScopeError
        If no item has an answer.
    """
    from babelscope.hooks.vocabulary import first_tokens

    prompts = study.prompts
    known = {text: first_tokens(loaded.tokenizer, text) for text in {answer_text(p) for p in prompts.prompts}}
    found = AnswerTokens.of([[known[answer_text(p)] for p in prompts.of(g)] for g in study.languages])
    if not found.tokens:
        raise BabelScopeError(
            f"no prompt of {study.store.path} has an answer", "latent-language needs gold options or answers as text"
        )
    return found


def answer_text(prompt: Prompt) -> str:
    """The right answer in words, also where the model is to answer with a letter."""
    return prompt.options[prompt.gold] if prompt.gold is not None and prompt.options else prompt.answer


def script_classes(study: Study, loaded: "LoadedModel", size: int) -> tuple[NDArray[np.int64], list[str]]:
    """Class of every token, and their names: the scripts of the prompts, all other scripts, and what has none."""
    from babelscope.datasets.scripts import NO_SCRIPT, script_of
    from babelscope.hooks.vocabulary import FRAGMENT, SPECIAL, token_scripts

    scripts: dict[str, None] = {}
    for language in study.languages:
        letters = pd.Series([script_of(c) for p in study.prompts.of(language) for c in p.text])
        shares = letters[letters != ""].value_counts(normalize=True)
        scripts |= dict.fromkeys(str(s) for s in shares[shares >= SCRIPT_SHARE].index)
    names = [*scripts, "other scripts", NO_SCRIPT, FRAGMENT, SPECIAL]
    place = {name: k for k, name in enumerate(names)}
    found = [place.get(s, place["other scripts"]) for s in token_scripts(loaded.tokenizer, size)]
    return np.array(found, dtype=np.int64), names
