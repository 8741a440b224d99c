"""How many bits labels take when activations are known, layer by layer and language by language."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from babelscope.analyses.probing import Place
from babelscope.analyses.statistics import benjamini_hochberg
from babelscope.probes.description_length import DescriptionLength

COLUMNS = (
    "site", "layer", "position", "language", "n", "n_classes", "bits", "uniform_bits", "compression", "worst_order",
    "best_order", "null", "saved", "p", "q",
)  # fmt: skip


def description_table(found: Mapping[tuple[Place, str], DescriptionLength]) -> pd.DataFrame:
    """Description lengths by the online code (`probes.description_length`).

    Returns
    -------
    DataFrame
        `compression` is uniform bits per bit, `worst_order` and `best_order` its extremes over the orders of items:
        they say how much the order matters, and are no interval over items. `n` counts groups of items that belong
        together. `null` is the compression of shuffled labels, `saved` the share of their bits that activations save, p
        that of a shuffle that takes no more bits, q over the layers of a language.
    """
    rows: list[dict[str, Any]] = [
        {
            "site": place.site.name, "layer": place.site.layer, "position": place.position, "language": language,
            "n": one.n_items, "n_classes": one.n_classes, "bits": one.bits, "uniform_bits": one.uniform_bits,
            "compression": one.compression, "worst_order": one.uniform_bits / one.per_ordering.max(),
            "best_order": one.uniform_bits / one.per_ordering.min(), "null": one.null_compression, "saved": one.saved,
            "p": one.p,
        }
        for (place, language), one in found.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table["layer"] = pd.array(table["layer"].tolist(), dtype="Int64")
    table["q"] = table.groupby(["site", "position", "language"], sort=False)["p"].transform(benjamini_hochberg)
    return table[list(COLUMNS)]
