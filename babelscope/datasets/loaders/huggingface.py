"""Hugging Face datasets: a folder written by `save_to_disk`, or `hf:OWNER/NAME[/CONFIGURATION]` on the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from babelscope.datasets.findings import Findings
from babelscope.datasets.language_files import PLACE, files_by_language, languages_matching
from babelscope.datasets.mapping import PromptMapping
from babelscope.datasets.records import Loader, Record, Records
from babelscope.errors import BabelScopeError

HUB = "hf:"
# `save_to_disk` writes the first for a dataset and the second for a dictionary of splits.
MARKS = ("state.json", "dataset_dict.json")


def accepts(source: str) -> bool:
    """Whether a source is on the hub or a folder that `save_to_disk` wrote."""
    return source.startswith(HUB) or any((Path(source) / mark).is_file() for mark in MARKS)


def read_huggingface(source: str, mapping: PromptMapping, findings: Findings) -> Records | None:
    """Records of one split of a dataset."""
    library = _library()
    try:
        if source.startswith(HUB):
            made = library.load_dataset(*_hub_name(source), split=mapping.split)
        else:
            made = library.load_from_disk(source)
    except BabelScopeError:
        raise
    except Exception as error:  # the library raises a dozen types: network, hub, format, configuration, split
        reason = str(error).strip().split("\n")[0]
        findings.report(source, f"cannot be loaded: {reason}", "check the name, the configuration and the network")
        return None
    if isinstance(made, dict):
        splits = list(made)
        wanted = mapping.split if mapping.split is not None else (splits[0] if len(splits) == 1 else None)
        if wanted not in splits:
            problem = f"has splits {', '.join(splits)}" + (f", not {wanted!r}" if wanted else "")
            findings.report(source, problem, f"choose one in the mapping, as split: {splits[-1] if splits else 'test'}")
            return None
        made = made[wanted]
    rows = tuple(Record(f"{source}, row {n}", values) for n, values in enumerate(made.to_list(), start=1))
    return Records(tuple(made.column_names), rows)


def by_language(pattern: str, languages: Sequence[str] | None, findings: Findings) -> dict[str, str]:
    """Folder, or name on the hub, of each language; on the hub `{language}` stands in the configuration."""
    if not pattern.startswith(HUB):
        return files_by_language(pattern, languages, findings)
    if languages is not None:
        return {code: pattern.replace(PLACE, code) for code in languages}
    name, configuration = _hub_name(pattern)
    if configuration is None or PLACE in name:
        findings.report(pattern, f"languages of {name} cannot be listed", "name them, as --languages en,de")
        return {}
    try:
        known = _library().get_dataset_config_names(name)
    except BabelScopeError:
        raise
    except Exception as error:  # as in read_huggingface
        reason = str(error).strip().split("\n")[0]
        findings.report(pattern, f"languages cannot be listed: {reason}", "name them, as --languages en,de")
        return {}
    found = languages_matching(configuration, known)
    if not found:
        problem = f"no configuration of {name} matches"
        findings.report(pattern, problem, f"it has: {', '.join(known[:20])}")
    return {code: f"{HUB}{name}/{config}" for code, config in found.items()}


def _hub_name(source: str) -> tuple[str, str | None]:
    parts = source.removeprefix(HUB).split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        hint = "write hf:OWNER/NAME or hf:OWNER/NAME/CONFIGURATION"
        raise BabelScopeError(f"{source!r} does not name a dataset on the Hugging Face hub", hint)
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise BabelScopeError(
            "Hugging Face datasets need the package `datasets`", "pip install 'babelscope[hub]'"
        ) from None
    return datasets


loader = Loader(
    "Hugging Face dataset, a folder or hf:OWNER/NAME", read_huggingface, accepts=accepts, by_language=by_language
)
