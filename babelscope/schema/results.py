"""Results: a tidy table with the provenance of every number in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelscope.errors import BabelScopeError
from babelscope.schema.glance import Glance, counted, listed
from babelscope.schema.sample import sample

if TYPE_CHECKING:
    import pandas as pd

# One row per (metric, variant, group, site, layer, language pair, threshold). Every measured value stands
# beside its null, its interval, its n and its corrected p; a column that does not apply holds NaN.
COLUMNS = {
    "metric": "str",
    "mode": "str",  # "paper" or "corrected"
    "variant": "str",
    "group": "str",  # value of the grouping covariate, "all" without one
    "site": "str",  # without the layer
    "position": "str",
    "layer": "Int64",  # NA: over all layers
    "head": "Int64",  # NA: over all heads, and where a site has none
    "language_a": "str",  # "*": over all languages or pairs
    "language_b": "str",
    "threshold": "float64",
    "n": "int64",  # items that count
    "n_undefined": "int64",  # items left out because the value is undefined there
    "matched": "float64",
    "matched_low": "float64",
    "matched_high": "float64",
    "null": "float64",
    "gap": "float64",
    "gap_low": "float64",
    "gap_high": "float64",
    "gap_corrected": "float64",  # (matched - null) / (highest possible - null)
    "effect_size": "float64",
    "auc": "float64",
    "retrieval_ab": "float64",
    "retrieval_ba": "float64",
    "mexa": "float64",
    "p": "float64",
    "q": "float64",
    "p_max": "float64",  # among all layers, or all layers and heads, of the mean over pairs
    "stability": "float64",  # share of the swept grid on which the conclusion holds, NaN where nothing was swept
    "verdict": "str",
}


@dataclass(frozen=True, slots=True)
class Result:
    """A tidy table of one metric and where it comes from.

    Parameters
    ----------
    name : str
        File stem of the saved table.
    table : DataFrame
        Columns as in `COLUMNS` (or a subset, for summaries).
    provenance : mapping
        Store fingerprint, parameters, seed, versions, definition and source of the metric.
    """

    name: str
    table: "pd.DataFrame"
    provenance: Mapping[str, Any]

    def __repr__(self) -> str:
        return self._glance(4).text()

    def _repr_html_(self) -> str:
        return self._glance(8).html()

    def _glance(self, rows: int) -> Glance:
        about = self.provenance
        title = str(about.get("title", ""))
        languages = about.get("languages", ())
        facts = {
            "what": str(about.get("definition", "")) or title,
            "units": str(about.get("units", "")),
            "source": str(about.get("source", "")),
            "holds": f"{counted(len(self.table), 'row')} x {counted(self.table.shape[1], 'column')}"
            + (f", {counted(len(languages), 'language')} ({listed(languages, 14)})" if languages else ""),
            "seed": str(about.get("seed", "")),
        }
        return Glance(f"Result {self.name}", facts, (sample(self.table, rows),))

    def save(self, folder: Path) -> list[Path]:
        """Write `NAME.parquet`, `NAME.csv` and `NAME.json`; return the paths written."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{self.name}.{suffix}" for suffix in ("parquet", "csv", "json")]
        self.table.to_parquet(paths[0], index=False)
        self.table.to_csv(paths[1], index=False)
        paths[2].write_text(json.dumps(self.provenance, indent=1, ensure_ascii=False, default=str) + "\n", "utf-8")
        return paths

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read what `save` wrote, from any of its files or from `folder/name`."""
        import pandas as pd  # the nouns load without it: `--help` needs no tables

        stem = path.with_suffix("")
        try:
            table = pd.read_parquet(stem.with_suffix(".parquet"))
            provenance = json.loads(stem.with_suffix(".json").read_text("utf-8"))
        except FileNotFoundError as error:
            raise BabelScopeError(f"{error.filename}: no such result", "run `cli.py analyze STORE` first") from None
        return cls(stem.name, table, provenance)
