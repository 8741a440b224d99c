"""How much texts switch between languages: CMI, I-index and M-index of every prompt."""

from collections import Counter
from itertools import pairwise

import pandas as pd

from babelscope.datasets.perturbed import NO_LANGUAGE
from babelscope.datasets.text_units import word_spans
from babelscope.schema import Prompt, PromptSet

COLUMNS = ("item", "language", "n_words", "n_languages", "cmi", "i_index", "m_index")


def switching_degree(prompts: PromptSet) -> pd.DataFrame:
    """Degree of code-switching of every prompt, from the languages of its segments.

    With n words, u of them of no language, and w_l of language l: `CMI = 100 (1 - max w_l / (n - u))` (Das and
    Gambäck 2014), 0 for a text in one language. `I-index` is the number of changes of language per pair of neighboring
    words that have one (Guzmán et al. 2017). `M-index = (1 - sum p_l^2) / ((k - 1) sum p_l^2)` with p_l = w_l / (n - u)
    (Barnett et al. 2000), from 0 to 1; k is the number of languages of the whole set, so that prompts can be compared.

    These differ between the variants of an item, so they are a table and no covariates, which are equal in all
    languages of an item.

    Parameters
    ----------
    prompts : PromptSet
        A word has the language of the narrowest segment around its first character, that of the prompt outside of all
        segments, and none if it is a number or in `zxx`.

    Returns
    -------
    DataFrame
        One row a prompt; n_words counts those with a language. NaN without such a word (I-index: without two of them,
        M-index: if the whole set has one language).
    """
    spoken = [_languages(p) for p in prompts.prompts]
    k = len({language for words in spoken for language in words})
    rows = []
    for prompt, words in zip(prompts.prompts, spoken, strict=True):
        n, counts = len(words), Counter(words)
        squares = sum((c / n) ** 2 for c in counts.values())
        rows.append((
            prompt.item, prompt.language, n, len(counts),
            100 * (1 - max(counts.values()) / n) if n else float("nan"),
            sum(a != b for a, b in pairwise(words)) / (n - 1) if n > 1 else float("nan"),
            (1 - squares) / ((k - 1) * squares) if n and k > 1 else float("nan"),
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _languages(prompt: Prompt) -> list[str]:
    found = []
    for start, stop in word_spans(prompt.text):
        around = [s for s in prompt.segments if s.start <= start < s.stop]
        language = min(around, key=lambda s: s.stop - s.start).language if around else prompt.language
        if language != NO_LANGUAGE and not prompt.text[start:stop].isnumeric():
            found.append(language)
    return found
