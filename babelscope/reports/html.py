"""One self-contained HTML file: verdicts, data card, figures with their answers, tables, and where they come from."""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined

from babelscope import plugins
from babelscope.activations_store import ActivationStore
from babelscope.reports.attention_view import AttentionView, view_json
from babelscope.reports.captions import left_out, null_items
from babelscope.reports.card import Card
from babelscope.reports.drawn import Drawn
from babelscope.reports.sections import SECTIONS
from babelscope.reports.sections.heads import section as heads
from babelscope.reports.source import Source
from babelscope.reports.tables import as_html, by_layer, by_pair, headline_text, overall
from babelscope.reports.verdicts import verdict_rows
from babelscope.schema import Result

OVERALL = (
    "mode", "variant", "group", "site", "threshold", "n", "n_undefined", "matched", "matched_low", "matched_high",
    "null", "gap", "gap_low", "gap_high", "gap_corrected", "p", "q", "stability", "verdict",
)  # fmt: skip
DETAILS = (
    "mode", "variant", "group", "site", "layer", "language_a", "language_b", "threshold", "n", "matched", "null",
    "gap", "gap_low", "gap_high", "effect_size", "auc", "retrieval_ab", "retrieval_ba", "q", "stability", "verdict",
)  # fmt: skip

# Rows of a table that the page shows; the JSON beside it holds all.
MOST_ROWS = 300

# A longer table is not repeated in the JSON, which would no longer open anywhere.
MOST_JSON_ROWS = 100_000


def page(
    path: Path,
    sources: Sequence[Source],
    drawn: Sequence[Drawn],
    cards: Sequence[Card],
    claims: pd.DataFrame,
    views: Sequence[AttentionView],
) -> str:
    """The HTML of a report that will stand at `path`.

    Every text that comes from prompts, models or files is escaped; scripts are the Vega runtime and our own, they stand
    inside the file, and a content policy keeps the page from fetching anything.
    """
    environment = Environment(
        loader=PackageLoader("babelscope.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    stores = [_store(source) for source in sources]
    return environment.get_template("report.html.j2").render(
        version=version("babelscope"),
        models=list(dict.fromkeys(store.plan.model.source for store in stores)),
        sources=[
            {
                "store": store,
                "name": source.name,
                "label": source.label,
                "left_out": left_out(source.results),
                "flags": card.flags,
                "card": as_html(card.table),
            }
            for store, source, card in zip(stores, sources, cards, strict=True)
        ],
        verdicts=_by_analysis(verdict_rows(claims)),
        headlines=[
            {
                "name": s.name if len(sources) > 1 else "",
                "null_items": null_items(s.similarities()),
                "html": as_html(text),
            }
            for s in sources
            if len(text := headline_text(s.results))
        ],
        sections=[_section(k, sources, drawn, views) for k in range(len(SECTIONS))],
        prompts=[prompt for store in stores for prompt in _sample(store)],
        tables=[table for source in sources for table in _tables(source, named=len(sources) > 1)],
        definitions=[*_definitions(sources)],
        longest=MOST_JSON_ROWS if any(len(r.table) > MOST_JSON_ROWS for s in sources for r in s.results) else 0,
        json_name=path.with_suffix(".json").name,
        figures_name=path.with_suffix(".figures").name,
        specs="{" + ",".join(f'"{d.key}":{_spec(d.figure.chart.to_dict())}' for d in drawn) + "}",
        views=view_json(views),
        runtime=vl_convert.javascript_bundle(),  # type: ignore[call-arg]  # the stub lacks the default
    )


def _by_analysis(rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Rows of the verdict table under the analysis that they come from, with its title."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault((row["store"], row["analysis"]), []).append(row)
    return [
        {"store": store, "analysis": name, "title": _title(name), "rows": own} for (store, name), own in found.items()
    ]


def _title(analysis: str) -> str:
    """What a metric or a recipe is called in full."""
    for kind in ("metric", "recipe"):
        if analysis in plugins.names(kind):
            return str(plugins.load(kind, analysis).info.title)
    return ""


def _store(source: Source) -> ActivationStore:
    assert source.store is not None, "a page is about stores"
    return source.store


def _section(
    k: int, sources: Sequence[Source], drawn: Sequence[Drawn], views: Sequence[AttentionView]
) -> dict[str, Any]:
    section = SECTIONS[k]
    figures = [
        {"key": d.key, "title": d.title, "caption": d.figure.caption, "answer": d.figure.answer, "file": d.file,
         "folded": d.folded}
        for d in drawn
        if d.section is section
    ]  # fmt: skip
    missing = [
        f"{part.title}: {part.missing(source)}"
        for source in sources
        for part in section.parts
        if not part.is_in(source)
    ]
    own = views if section is heads else ()
    if section is heads and not views:
        missing.append(
            "One item in two languages: needs --site attn.pattern at position last, texts, and the tokenizer of the "
            "model"
        )
    return {
        "key": f"section-{k}", "title": section.title, "question": section.question, "figures": figures,
        "missing": list(dict.fromkeys(missing)), "views": own, "n": len(figures) + len(own),
    }  # fmt: skip


def _definitions(sources: Sequence[Source]) -> Iterator[dict[str, str]]:
    for source in sources:
        of = f"{source.name}: " if len(sources) > 1 else ""
        for result in source.results:
            yield {"name": of + result.name, "text": _json(result.provenance)}
        yield {"name": f"{of}store", "text": _json(_store(source).provenance)}


def _tables(source: Source, *, named: bool) -> Iterator[dict[str, Any]]:
    """Tables of the results; what has no rows (layers of `embed`, pairs of a published definition) is left out."""
    for result in source.results:
        for shown in _candidates(result):
            if shown["rows"]:
                yield {**shown, "name": f"{source.name}: {shown['name']}"} if named else shown


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
        yield _titled(result.name.replace("_", " "), table, _columns(table))


def _columns(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(map(str, table.columns))


def _titled(name: str, table: pd.DataFrame, columns: Sequence[str], *, is_open: bool = False) -> dict[str, Any]:
    shown = table[[c for c in columns if c in table]]
    some = f", the first {MOST_ROWS} here" if len(shown) > MOST_ROWS else ""
    html = as_html(shown.head(MOST_ROWS))
    return {"name": name, "rows": len(shown), "shown": some, "html": html, "is_open": is_open}


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
