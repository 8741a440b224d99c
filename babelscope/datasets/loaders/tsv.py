"""TSV: fields separated by tabs, with or without a header."""

from babelscope.datasets.delimited import read_delimited
from babelscope.datasets.findings import Findings
from babelscope.datasets.mapping import PromptMapping
from babelscope.datasets.records import Loader, Records


def read_tsv(source: str, mapping: PromptMapping, findings: Findings) -> Records | None:
    """Records of a TSV file."""
    return read_delimited(source, mapping, findings, "\t")


loader = Loader("TSV, with a header or named columns", read_tsv, (".tsv", ".tab"))
