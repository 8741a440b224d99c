"""Verbs on prompts: gather, generate, audit, write."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from babelscope import plugins
from babelscope.datasets.audit import audit
from babelscope.datasets.code_switched import in_languages
from babelscope.datasets.language_files import PLACE
from babelscope.datasets.language_pairs import parts_of
from babelscope.datasets.lexicon import read_lexicon
from babelscope.datasets.load import load_prompts
from babelscope.datasets.mapping import PromptMapping
from babelscope.datasets.mixed_corpus import Unit, mixed_corpus
from babelscope.datasets.native import write_prompts
from babelscope.datasets.nli_pairs import nli_pairs
from babelscope.datasets.perturbed import RATE, perturbed
from babelscope.datasets.published_statements import write_published
from babelscope.datasets.translation import translation_prompts
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet, concatenate
from babelscope.workflows.model_folders import model_path
from babelscope.workflows.signals import Note

__all__ = [
    "AnyMapping",
    "Unit",
    "audit_prompts",
    "generate",
    "inference_pairs",
    "mixed_corpus",
    "perturbed_prompts",
    "prompts_of",
    "translations",
    "write_prompts",
    "write_published",
]

AnyMapping = PromptMapping | Mapping[str, Any] | Path | str | None


def prompts_of(
    sources: str | Path | PromptSet | Sequence[str | Path | PromptSet],
    *,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    mapping: AnyMapping = None,
) -> tuple[PromptSet, list[str]]:
    """One prompt set out of names of generated datasets, files and prompt sets.

    Parameters
    ----------
    sources : str, Path, PromptSet or sequence of these
    languages : sequence of str, optional
        Only these, in this order. `en-fr` is the context in English and the rest in French
        (`datasets.code_switched`), unless a source has a language of that name.
    limit : int, optional
        First items kept of *each* source.
    mapping : optional
        What the columns of the files mean.

    Returns
    -------
    PromptSet
    list of str
        What the loaders noted: repaired lines, items missing in a language.
    """
    named = [sources] if isinstance(sources, str | Path | PromptSet) else list(sources)
    if not named:
        raise BabelScopeError("no prompts were named", "add --prompts kfrd-arithmetic or --prompts FILE.jsonl")
    if limit is not None and limit < 1:
        raise BabelScopeError(f"a limit of {limit} items leaves nothing", "give --limit 1 or more")
    sets, notes = [], []
    for source in named:
        if isinstance(source, PromptSet):
            found = source
        elif mapping is None and limit is not None and limit > _default_items(str(source)):
            found = generate(str(source), languages=languages, items=limit)
        else:
            found, said = load_prompts(source, mapping=mapping, languages=_to_read(str(source), languages))
            notes += said
        found = in_languages(found, languages) if languages is not None else found
        sets.append(found.select(limit=limit))
    return concatenate(sets), notes


def _to_read(source: str, languages: Sequence[str] | None) -> Sequence[str] | None:
    """Languages to read for those asked for: of a pair, both, unless the source has a language of that name.

    Only reading it tells whether one file has it, so there all languages are read.
    """
    if languages is None or isinstance(languages, str) or not any(map(parts_of, languages)):
        return languages
    if source.replace("_", "-") in plugins.names("dataset"):
        own: Collection[str] = plugins.load("dataset", source).info.languages
    elif PLACE in source:
        own = {code for code in languages if Path(source.replace(PLACE, code)).exists()}
    else:
        return None
    return list(dict.fromkeys(part for code in languages for part in _parts(code, own)))


def _parts(code: str, own: Collection[str]) -> tuple[str, ...]:
    return (code,) if code in own else parts_of(code) or (code,)


def _default_items(source: str) -> float:
    """How many items a generated dataset makes when not told; no bound for files, which hold what they hold."""
    if source.replace("_", "-") not in plugins.names("dataset"):
        return math.inf
    return int(plugins.load("dataset", source)().items)


def generate(dataset: str, *, languages: Sequence[str] | None = None, **parameters: Any) -> PromptSet:
    """Prompts of a generated dataset.

    Parameters
    ----------
    dataset : str
        As `cli.py data ls` prints it.
    languages : sequence of str, optional
        Also pairs, as in `prompts_of`.
    **parameters
        Fields of the dataset's recipe, as `items`, `seed`, `split`, `letters`, `compat`.

    Raises
    ------
    BabelScopeError
        For an unknown dataset, language or parameter.
    """
    recipe = plugins.load("dataset", dataset)
    known = set(recipe.__dataclass_fields__)
    defaults = {"items": 240, "seed": 0, "split": "test", "letters": "latin", "compat": "corrected"}
    unknown = [name for name, value in parameters.items() if name not in known and defaults.get(name) != value]
    if unknown:
        raise BabelScopeError(
            f"dataset {dataset} has no parameter {unknown[0]!r}", f"it has: {', '.join(sorted(known))}"
        )
    fields = {k: v for k, v in parameters.items() if k in known}
    made: PromptSet = recipe(**fields).generate(_to_read(dataset, languages))
    return made if languages is None else in_languages(made, languages)


def gathered(
    sources: Sequence[str],
    parameters: Mapping[str, Any],
    *,
    split: str,
    languages: Sequence[str] | None,
    limit: int | None,
    note: Note,
) -> PromptSet:
    """Generated sets, made with `parameters` (of `split`, unless these say otherwise), and files, as one set.

    Raises
    ------
    BabelScopeError
        As `generate` and `prompts_of` do.
    """
    sets = []
    for source in sources:
        if source.replace("_", "-") in plugins.names("dataset"):
            made = generate(source, languages=languages, **{"split": split, **parameters})
            sets.append(made.select(limit=limit))
        else:
            found, notes = prompts_of([source], languages=languages, limit=limit)
            sets.append(found)
            for text in notes:
                note(text)
    return concatenate(sets)


def audit_prompts(
    source: str | Path | PromptSet,
    *,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    mapping: AnyMapping = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Accuracy of heuristics that never solve the task, per language and rule, with intervals; and notes."""
    prompts, notes = prompts_of([source], languages=languages, limit=limit, mapping=mapping)
    return audit(prompts), notes


def inference_pairs(
    source: str | Path | PromptSet,
    codes: Sequence[str],
    *,
    mapping: AnyMapping = "xnli",
    limit: int | None = None,
    parallel: bool = True,
    swap: bool = False,
    seed: int = 0,
) -> tuple[PromptSet, list[str]]:
    """Two texts of each item of an inference set in two languages (`datasets.nli_pairs`), and notes."""
    languages = list(dict.fromkeys(part for code in codes for part in parts_of(code) or (code,)))
    prompts, notes = prompts_of([source], languages=languages, limit=limit, mapping=mapping)
    return nli_pairs(prompts, codes, parallel=parallel, swap=swap, seed=seed), notes


def perturbed_prompts(
    source: str | Path | PromptSet,
    *,
    language: str = "en",
    lexicon: str | Path | None = None,
    translate_rate: float = RATE,
    replace_rate: float | None = None,
    vocabulary: str | None = None,
    seed: int = 0,
    mapping: AnyMapping = None,
    limit: int | None = None,
) -> tuple[PromptSet, list[str]]:
    """Texts mixed with words of other languages, and controls at the same places (`datasets.perturbed`); and notes.

    Parameters
    ----------
    lexicon : str or Path, optional
        A tab-separated file (`datasets.lexicon.read_lexicon`). Default: our own vocabularies.
    vocabulary : str, optional
        Model of whose tokenizer random tokens are drawn. Without one they are random words of the texts.
    """
    prompts, notes = prompts_of([source], languages=[language], limit=limit, mapping=mapping)
    random_text = None
    if vocabulary is not None:
        from babelscope.hooks.vocabulary import load_tokenizer, random_tokens  # transformers is imported here

        random_text = random_tokens(load_tokenizer(model_path(vocabulary)))
    made, reached = perturbed(
        prompts, language, None if lexicon is None else read_lexicon(lexicon), translate_rate=translate_rate,
        replace_rate=replace_rate, random_text=random_text, seed=seed,
    )  # fmt: skip
    kept = [r for r in reached if r.translated]
    if len(kept) < len(reached):
        notes.append(f"{len(reached) - len(kept)} of {len(reached)} items left out: no word of them can be changed")
    for what, asked, shares in (
        ("translated", translate_rate, [r.translated / r.words for r in kept]),
        ("replaced", translate_rate if replace_rate is None else replace_rate, [r.replaced / r.words for r in kept]),
    ):
        spread = f"{min(shares):.3f} to {max(shares):.3f} an item"
        notes.append(f"{what}: {sum(shares) / len(shares):.3f} of the words of an item ({spread}); asked for {asked:g}")
    if vocabulary is None:
        notes.append("random-token: random words of these texts; --vocabulary MODEL draws tokens of its vocabulary")
    return made, notes


def translations(
    source: str | Path | PromptSet,
    pairs: Sequence[str],
    *,
    shots: int = 4,
    segment: str = "",
    seed: int = 0,
    mapping: AnyMapping = None,
    limit: int | None = None,
) -> tuple[PromptSet, list[str]]:
    """Prompts that ask for translations of parallel texts (`datasets.translation`), and notes.

    `limit` counts items with different texts, and leaves demonstrations to be drawn from all of them.
    """
    languages = list(dict.fromkeys(part for pair in pairs for part in parts_of(pair) or (pair,)))
    prompts, notes = prompts_of([source], languages=languages, mapping=mapping)
    made = translation_prompts(prompts, pairs, shots=shots, segment=segment, seed=seed)
    if len(made.items) < len(prompts.items):
        notes.append(f"{len(prompts.items) - len(made.items)} of {len(prompts.items)} items repeat a text, or a "
                     "language lacks them: left out")  # fmt: skip
    return made.select(limit=limit), notes
