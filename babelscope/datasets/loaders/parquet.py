"""Parquet: one table in one file, as Hugging Face datasets are stored."""

import hashlib
import io

from babelscope.datasets.findings import Findings
from babelscope.datasets.mapping import PromptMapping
from babelscope.datasets.records import Loader, Record, Records, read_bytes


def read_parquet(source: str, mapping: PromptMapping, findings: Findings) -> Records | None:
    """Records of a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    data = read_bytes(source, findings)
    if data is None:
        return None
    try:
        table = parquet.ParquetFile(io.BytesIO(data)).read()
    except (pyarrow.ArrowException, OSError) as error:
        findings.report(source, f"is not a readable Parquet file: {error}", "check that the file is complete")
        return None
    rows = tuple(Record(f"{source}, row {n}", values) for n, values in enumerate(table.to_pylist(), start=1))
    return Records(tuple(table.column_names), rows, hashlib.sha256(data).hexdigest())


loader = Loader("Parquet, one table", read_parquet, (".parquet",))
