"""What a command prints: text for people, or one JSON document with the same numbers and every digit."""

import codecs
import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

# The way out for letters that a terminal cannot show: a few signs have a plain form, others are escaped.
PLAIN = "plain"
_FORMS = {"–": "-", "—": "-", "×": "x", "…": "...", "’": "'", "“": '"', "”": '"'}


def show(text: object, document: Any, *, as_json: bool) -> None:
    """Print a text or, instead, a document as JSON: NaN is null, a table is a list of rows.

    What knows its JSON (`to_json`) is that; a dataclass is its fields.
    """
    print(json.dumps(plain(document), ensure_ascii=False, allow_nan=False) if as_json else text)


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if hasattr(value, "to_dict"):  # a DataFrame, without loading pandas for `ls`
        return [plain(row) for row in value.to_dict("records")]
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return plain(value.tolist())
    return None if str(value) in ("<NA>", "NaT") else str(value)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Escape what an encoding lacks, but for the few signs that have a plain form."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_FORMS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


codecs.register_error(PLAIN, _replaced)
