"""CSV: fields separated by commas, texts in quotes where needed (RFC 4180)."""

from babelscope.datasets.delimited import read_delimited
from babelscope.datasets.findings import Findings
from babelscope.datasets.mapping import PromptMapping
from babelscope.datasets.records import Loader, Records


def read_csv(source: str, mapping: PromptMapping, findings: Findings) -> Records | None:
    """Records of a CSV file."""
    return read_delimited(source, mapping, findings, ",")


loader = Loader("CSV, with a header or named columns", read_csv, (".csv",))
