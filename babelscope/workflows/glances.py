"""What the results of a verb show of themselves in a notebook."""

from collections.abc import Iterable, Mapping

import pandas as pd

from babelscope.activations_store import ActivationStore
from babelscope.schema import Result
from babelscope.schema.glance import Glance
from babelscope.schema.sample import sample


def glance(
    title: str,
    store: ActivationStore,
    results: Iterable[Result],
    facts: Mapping[str, str],
    shown: Iterable[pd.DataFrame],
) -> Glance:
    """The tables with their numbers of rows, facts, and the rows that a reader wants first."""
    beside = {"tables": ", ".join(f"{r.name} ({len(r.table):,})" for r in results), **facts}
    return Glance(f"{title} of {store.path}", beside, tuple(sample(table) for table in shown if len(table)))
