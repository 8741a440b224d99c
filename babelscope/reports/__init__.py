"""Reports: verdicts, figures and their answers drawn from tables alone, and one HTML file that needs no network."""

from babelscope.reports.attention_view import AttentionView
from babelscope.reports.captions import left_out, null_items
from babelscope.reports.figures import Figure, figures, stacked
from babelscope.reports.source import Source
from babelscope.reports.tables import ABOVE, by_step, claims, claims_text, headline, headline_text, text, texts
from babelscope.reports.verdicts import verdicts
from babelscope.reports.writing import EXPORTS, report_files, write_report

__all__ = [
    "ABOVE",
    "EXPORTS",
    "AttentionView",
    "Figure",
    "Source",
    "by_step",
    "claims",
    "claims_text",
    "figures",
    "headline",
    "headline_text",
    "left_out",
    "null_items",
    "report_files",
    "stacked",
    "text",
    "texts",
    "verdicts",
    "write_report",
]
