"""One self-contained HTML file: figures, the same numbers as tables, and where they come from."""

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined

from babelscope.activations_store import ActivationStore
from babelscope.reports.figures import figures
from babelscope.schema import Result

OVERALL = (
    "mode", "variant", "group", "site", "threshold", "n", "n_undefined", "matched", "matched_low", "matched_high",
    "null", "gap", "gap_low", "gap_high", "gap_corrected", "p", "q", "verdict",
)  # fmt: skip


def write_report(path: Path, results: Sequence[Result], store: ActivationStore) -> Path:
    """Write the report of an analysis to `path`, whole or not at all.

    Every text that comes from prompts, models or files is escaped; scripts are the Vega runtime alone,
    and it stands inside the file.
    """
    environment = Environment(
        loader=PackageLoader("babelscope.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    drawn = [
        {"key": f"figure-{i}", "title": f.title, "caption": f.caption, "spec": _script_safe(f.chart.to_dict())}
        for i, f in enumerate(figures(results))
    ]
    html = environment.get_template("report.html.j2").render(
        version=version("babelscope"),
        store=store,
        figures=drawn,
        tables=[{"name": r.name, "html": _table(r), "provenance": r.provenance} for r in results],
        prompts=_sample(store),
        provenance=json.dumps(store.provenance, indent=1, ensure_ascii=False, default=str),
        runtime=vl_convert.javascript_bundle(),
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(html, "utf-8")
    partial.replace(path)
    return path


def _table(result: Result) -> str:
    table = result.table
    if "language_a" in table:
        table = table[(table["language_a"] == "*") & table["layer"].isna()]
        table = table[[c for c in OVERALL if c in table and table[c].notna().any()]]
    return str(table.to_html(index=False, float_format=_number, na_rep="", border=0, escape=True))


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.4g}"


def _sample(store: ActivationStore) -> list[dict[str, str]]:
    """First item of each dataset in the first two languages, if the store kept its texts."""
    if not store.has_texts:
        return []
    prompts = store.prompts.prompts
    seen: dict[tuple[Any, str], dict[str, str]] = {}
    for p in prompts:
        if p.language in store.languages[:2]:
            key = (p.covariates.get("dataset", ""), p.language)
            seen.setdefault(key, {"item": p.item, "language": p.language, "text": p.text})
    return list(seen.values())


def _script_safe(spec: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(spec, default=str).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
