"""Reports: figures drawn from tables alone, and one HTML file that needs no network."""

from babelscope.reports.captions import left_out, null_items
from babelscope.reports.figures import Figure, figures, stacked
from babelscope.reports.html import write_report
from babelscope.reports.tables import claims_text, headline, headline_text, step_text

__all__ = [
    "Figure",
    "claims_text",
    "figures",
    "headline",
    "headline_text",
    "left_out",
    "null_items",
    "stacked",
    "step_text",
    "write_report",
]
