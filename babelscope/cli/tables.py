"""Result tables on the terminal."""

from rich.table import Table

from babelscope.cli.progress import out
from babelscope.workflows import Analysis


def print_summary(analysis: Analysis) -> None:
    """Print the overall row of every metric, variant and group: gap, interval, null, n, q, verdict."""
    drawn = Table(box=None, header_style="bold")
    for name in ("metric", "variant", "site", "group", "threshold", "matched", "null", "gap", "95 %", "n", "q", "verdict"):
        drawn.add_column(name, justify="left" if name in ("metric", "variant", "site", "group", "verdict") else "right")
    for result in analysis.results:
        if not {"language_a", "gap", "verdict"} <= set(result.table.columns):
            continue
        table = result.table
        rows = table[(table["language_a"] == "*") & table["layer"].isna() & (table["mode"] == "corrected")]
        thresholds = sorted(rows["threshold"].dropna().unique())
        if thresholds:
            near = min(thresholds, key=lambda v: abs(v - 0.4))
            rows = rows[rows["threshold"].isna() | (rows["threshold"] == near)]
        for row in rows.itertuples():
            threshold = "" if row.threshold != row.threshold else f"{row.threshold:g}"
            drawn.add_row(
                row.metric, row.variant, row.site, row.group, threshold, f"{row.matched:.3f}", f"{row.null:.3f}",
                f"{row.gap:.3f}", f"[{row.gap_low:.3f}, {row.gap_high:.3f}]", str(row.n), f"{row.q:.2g}", row.verdict,
            )  # fmt: skip
    out.print(drawn)
