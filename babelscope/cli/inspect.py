"""`babelscope inspect`: what a store holds and where it comes from."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from babelscope import layout, workflows
from babelscope.cli.options import AsJson, Store
from babelscope.cli.printing import show
from babelscope.cli.progress import bar
from babelscope.errors import printable

if TYPE_CHECKING:
    import pandas as pd


def run(
    store: Store,
    values: Annotated[
        bool, typer.Option("--values", help="Read all values: medians, massive ones, their units.")
    ] = False,
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Also accuracy per language and task.")] = False,
    provenance: Annotated[bool, typer.Option("--provenance", help="Also where every number came from.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a store holds, and what in it is not finite, clipped or far above the rest.

    Rows are compared by the largest |value| of each, which is stored beside them.
    """
    opened = workflows.open_store(store)
    found: dict[str, Any] = {"store": opened}
    if values:
        with bar() as progress:
            found["values"] = opened.magnitudes(progress)
    else:
        found["rows"] = opened.extremes
    if accuracy:
        found["accuracy"] = workflows.accuracy(opened).table
    if provenance:
        found["provenance"] = opened.provenance
    show("\n\n".join(_texts(**found)), found, as_json=as_json)


def _texts(
    store: object,
    *,
    rows: "pd.DataFrame | None" = None,
    values: "pd.DataFrame | None" = None,
    accuracy: "pd.DataFrame | None" = None,
    provenance: object = None,
) -> Iterable[str]:
    from babelscope.activations_store.magnitudes import FAR, MASSIVE, MASSIVE_RATIO  # pandas, which no help waits for

    yield str(store)
    of_rows = f"largest |value| of each row (far: above {FAR:g} x the median)"
    of_values = f"|values| (massive: above {MASSIVE:g} and above {MASSIVE_RATIO:g} x the median)"
    for title, table in ((of_rows, rows), (of_values, values)):
        if table is not None and len(table):
            named = table.assign(item=table["item"] + " [" + table["language"] + "]").drop(columns="language")
            named = named.rename(columns={"nonfinite": "not_finite"})  # a name that breaks
            lines = layout.table(named.to_dict("records"), headings=("site", "position"))
            yield f"{title}\n{lines}"
    if accuracy is not None:
        yield layout.table(accuracy.to_dict("records"))
    if provenance is not None:
        yield printable(json.dumps(provenance, indent=1, ensure_ascii=False, default=str))
