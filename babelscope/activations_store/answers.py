"""What is known about items and how the model answered them, as tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.activations_store.hdf5 import read_checked, strings
from babelscope.schema import Prompt

if TYPE_CHECKING:
    from babelscope.activations_store.reader import ActivationStore

_COLUMNS = ("item", "language", "n_tokens", "last_token", "gold", "choice", "correct", "undefined")


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
    scores: list[NDArray[np.generic]] = []
    for language in store.languages:
        for block in store.blocks(language):
            with store.shard(language, block) as file:
                items = [store.items[i] for i in store.captured(language, block)]
                columns["item"] += items
                columns["language"] += [language] * len(items)
                columns["n_tokens"] += read_checked(file["rows/n_tokens"]).tolist()
                columns["last_token"] += strings(file["rows/last_token"])
                columns["gold"] += [gold.get((item, language)) for item in items]
                if "answers" in file:
                    group = file["answers"]
                    columns["choice"] += [None if c < 0 else int(c) for c in read_checked(group["choice"])]
                    columns["correct"] += read_checked(group["correct"]).tolist()
                    columns["undefined"] += strings(group["undefined"])
                    scores.append(read_checked(group["scores"]))
                else:
                    columns["choice"] += [None] * len(items)
                    columns["correct"] += [np.nan] * len(items)
                    columns["undefined"] += [""] * len(items)
                    scores.append(np.empty((len(items), 0)))
    options = max((s.shape[1] for s in scores), default=0)
    padded = [np.pad(s.astype(float), ((0, 0), (0, options - s.shape[1])), constant_values=np.nan) for s in scores]
    table = pd.DataFrame(columns)
    for name in ("n_tokens", "gold", "choice"):
        table[name] = pd.array(columns[name], dtype="int64" if name == "n_tokens" else "Int64")
    table["correct"] = np.array(columns["correct"], float)
    undefined = table.pop("undefined")
    for option in range(options):
        table[f"score_{option}"] = np.concatenate([s[:, option] for s in padded])
    return table.assign(undefined=undefined)
