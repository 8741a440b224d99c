"""What is known about items and what became of them, as tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.activations_store.encoding import STATUS
from babelscope.activations_store.hdf5 import read_checked, strings
from babelscope.schema import Prompt
from babelscope.schema.captured import NO_OPTION, spelling_problem

if TYPE_CHECKING:
    from babelscope.activations_store.reader import ActivationStore

_COLUMNS = ("item", "language", "n_tokens", "last_token", "gold", "choice", "correct", "undefined")
# Dataset of a shard -> column of each option.
_BY_OPTION = {"scores": "score", "text_scores": "text_score", "text_tokens": "text_tokens"}


def covariate_table(items: Sequence[str], prompts: Sequence[Prompt]) -> pd.DataFrame:
    """Covariates and gold by item; what an item lacks is NaN."""
    rows: dict[str, dict[str, Any]] = {}
    for prompt in prompts:
        rows.setdefault(prompt.item, {**prompt.covariates, "gold": prompt.gold})
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(list(items))
    table.index.name = "item"
    table["gold"] = table["gold"].astype("Int64")
    return table


def answer_table(store: "ActivationStore", prompts: Sequence[Prompt]) -> pd.DataFrame:
    """One row per captured prompt, in row order of the store."""
    gold = {(p.item, p.language): p.gold for p in prompts}
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    written: list[str] = []
    by_option: dict[str, list[NDArray[np.generic]]] = {name: [] for name in _BY_OPTION}
    for language in store.languages:
        for block in store.blocks(language):
            with store.shard(language, block) as file:
                items = [store.items[i] for i in store.captured(language, block)]
                columns["item"] += items
                columns["language"] += [language] * len(items)
                columns["n_tokens"] += read_checked(file["rows/n_tokens"]).tolist()
                columns["last_token"] += strings(file["rows/last_token"])
                columns["gold"] += [gold.get((item, language)) for item in items]
                group = file.get("answers", {})
                has = "choice" in group
                columns["choice"] += [
                    None if c < 0 else int(c) for c in (read_checked(group["choice"]) if has else [-1] * len(items))
                ]
                columns["correct"] += read_checked(group["correct"]).tolist() if has else [np.nan] * len(items)
                columns["undefined"] += strings(group["undefined"]) if has else [""] * len(items)
                for name, found in by_option.items():
                    found.append(read_checked(group[name]) if name in group else np.empty((len(items), 0)))
                written += strings(group["continuation"]) if "continuation" in group else []
    table = pd.DataFrame(columns)
    for name in ("n_tokens", "gold", "choice"):
        table[name] = pd.array(columns[name], dtype="int64" if name == "n_tokens" else "Int64")
    table["correct"] = np.array(columns["correct"], float)
    undefined = table.pop("undefined")
    for name, column in _BY_OPTION.items():
        for option, values in enumerate(_padded(by_option[name]).T):
            table[f"{column}_{option}"] = values
    if store.plan.continuation:
        table["continuation"] = pd.Series(written, index=table.index, dtype="str")
    return table.assign(undefined=undefined)


def spelling_table(store: "ActivationStore") -> pd.DataFrame:
    """One row per captured prompt and spelling of the labels, by language, spelling and item; empty without any."""
    tables = []
    for language in store.languages if store.plan.spellings else ():
        items: list[str] = []
        blocks: dict[str, list[NDArray[np.generic]]] = {"scores": [], "tokens": []}
        names: list[str] = []
        for block in store.blocks(language):
            with store.shard(language, block) as file:
                names = strings(file["answers/spelling"])
                items += [store.items[i] for i in store.captured(language, block)]
                for name, found in blocks.items():
                    found.append(read_checked(file[f"answers/label_{name}"]))
        for place, spelling in enumerate(names):
            scores, tokens = (_padded([x[:, :, place] for x in found], NO_OPTION) for found in blocks.values())
            columns: dict[str, Any] = {"item": items, "language": language, "spelling": spelling}
            columns["undefined"] = [spelling_problem(row) for row in tokens]
            columns |= {f"score_{i}": column for i, column in enumerate(scores.T)}
            columns |= {f"token_{i}": pd.array(column, "Int64") for i, column in enumerate(tokens.T)}
            tables.append(pd.DataFrame(columns))
    if not tables:
        return pd.DataFrame(columns=["item", "language", "spelling", "undefined"])
    table = pd.concat(tables, ignore_index=True)
    for column in table.filter(regex=r"^token_\d+$"):
        table[column] = table[column].where(table[column] >= 0)
    return table


def failed_table(store: "ActivationStore") -> pd.DataFrame:
    """Items that could not be captured: item, language, reason."""
    rows: list[tuple[str, str, str]] = []
    for language in store.languages:
        for block in store.blocks(language):
            with store.shard(language, block) as file:
                items, reasons = read_checked(file["failed/item"]), strings(file["failed/reason"])
                rows += [(store.items[i], language, why) for i, why in zip(items, reasons, strict=True)]
    return pd.DataFrame(rows, columns=["item", "language", "reason"])


def marked_table(store: "ActivationStore") -> pd.DataFrame:
    """Items whose status is not ok: item, language, status."""
    rows: list[tuple[str, str, str]] = []
    for language in store.languages:
        for block in store.blocks(language):
            with store.shard(language, block) as file:
                if "status" not in file["rows"]:  # written before schema 1.0 was promised
                    continue
                status = read_checked(file["rows/status"])
            items = store.captured(language, block)
            for row in np.flatnonzero(status):
                named = STATUS[status[row]] if status[row] < len(STATUS) else f"status {status[row]}"
                rows.append((store.items[items[row]], language, named))
    return pd.DataFrame(rows, columns=["item", "language", "status"])


def _padded(blocks: Sequence[NDArray[np.generic]], none: int = 0) -> NDArray[np.float64]:
    """(item, option) of all blocks; options that a block does not know are NaN, or `none` in whole numbers."""
    options = max((x.shape[1] for x in blocks), default=0)
    known = []
    for x in blocks:
        fill = none if x.dtype.kind == "i" else np.nan
        known.append(np.pad(x.astype(float), ((0, 0), (0, options - x.shape[1])), constant_values=fill))
    return np.concatenate([np.empty((0, options)), *known])
