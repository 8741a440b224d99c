"""One self-contained HTML file: figures, the same numbers as tables, and where they come from."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined

from babelscope.activations_store import ActivationStore
from babelscope.reports.captions import left_out, null_items
from babelscope.reports.figures import figures
from babelscope.reports.tables import as_html, by_layer, by_pair, headline_text, overall
from babelscope.schema import Result

OVERALL = (
    "mode", "variant", "group", "site", "threshold", "n", "n_undefined", "matched", "matched_low", "matched_high",
    "null", "gap", "gap_low", "gap_high", "gap_corrected", "p", "q", "stability", "verdict",
)  # fmt: skip
DETAILS = (
    "mode", "variant", "group", "site", "layer", "language_a", "language_b", "threshold", "n", "matched", "null",
    "gap", "gap_low", "gap_high", "effect_size", "auc", "retrieval_ab", "retrieval_ba", "q", "stability", "verdict",
)  # fmt: skip


def write_report(path: Path, results: Sequence[Result], store: ActivationStore) -> Path:
    """Write the report of an analysis to `path`, whole or not at all.

    Every text that comes from prompts, models or files is escaped; scripts are the Vega runtime alone, it stands
    inside the file, and a content policy keeps the page from fetching anything.
    """
    environment = Environment(
        loader=PackageLoader("babelscope.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    drawn = [
        {"key": f"figure-{i}", "mode": f.mode, "title": f.title, "caption": f.caption, "spec": _spec(f.chart.to_dict())}
        for i, f in enumerate(figures(results))
    ]
    html = environment.get_template("report.html.j2").render(
        version=version("babelscope"),
        store=store,
        left_out=left_out(results),
        null_items=null_items(results),
        headline=as_html(headline_text(results)),
        figures=drawn,
        tables=[table for result in results for table in _tables(result)],
        definitions=[{"name": r.name, "text": _json(r.provenance)} for r in results],
        prompts=_sample(store),
        provenance=_json(store.provenance),
        runtime=vl_convert.javascript_bundle(),  # type: ignore[call-arg]  # the stub lacks the default,
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Prompts may hold half a character; it becomes a visible escape.
        partial.write_bytes(html.encode("utf-8", "backslashreplace"))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _tables(result: Result) -> Iterator[dict[str, Any]]:
    """Tables of a result; what has no rows (layers of `embed`, pairs of a published definition) is left out."""
    yield from (shown for shown in _candidates(result) if shown["rows"])


def _candidates(result: Result) -> Iterator[dict[str, Any]]:
    table = result.table
    if {"language_a", "layer", "matched"} <= set(table.columns):
        yield _titled(f"{result.name}: means over layers and language pairs", overall(table), OVERALL, is_open=True)
        yield _titled(f"{result.name}: by layer", by_layer(table), DETAILS)
        yield _titled(f"{result.name}: by language pair", by_pair(table), DETAILS)
    elif "layer" in table and "claim" not in table:
        over_layers = table[table["layer"].isna()].drop(columns=["layer", "position"], errors="ignore")
        name = result.name.replace("_", " ")
        yield _titled(f"{name}: over all layers", over_layers, _columns(over_layers), is_open=True)
        yield _titled(f"{name}: by layer", table[table["layer"].notna()], _columns(table))
    else:
        yield _titled(result.name, table, _columns(table), is_open=True)


def _columns(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(map(str, table.columns))


def _titled(name: str, table: pd.DataFrame, columns: Sequence[str], *, is_open: bool = False) -> dict[str, Any]:
    shown = table[[c for c in columns if c in table]]
    return {"name": name, "rows": len(shown), "html": as_html(shown), "is_open": is_open}


def _sample(store: ActivationStore) -> list[dict[str, str]]:
    """First item of each dataset in the first two languages, if the store kept its texts."""
    if not store.has_texts:
        return []
    seen: dict[tuple[Any, str], dict[str, str]] = {}
    for p in store.prompts.prompts:
        if p.language in store.languages[:2]:
            key = (p.covariates.get("dataset", ""), p.language)
            seen.setdefault(key, {"item": p.item, "language": p.language, "text": p.text})
    return list(seen.values())


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(dict(record), indent=1, ensure_ascii=False, default=str)


def _spec(chart: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(chart, default=str, separators=(",", ":"))  # ASCII: U+2028 is escaped too
    return text.replace("<", "\\u003c")
