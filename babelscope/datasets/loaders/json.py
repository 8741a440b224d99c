"""JSON: a list of objects, or records further inside."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from babelscope.datasets.findings import Findings
from babelscope.datasets.mapping import PromptMapping
from babelscope.datasets.records import Loader, Record, Records, columns_of, read_text


def read_json(source: str, mapping: PromptMapping, findings: Findings) -> Records | None:
    """Records of a JSON file at `mapping.records`, with the fields of the objects that enclose them."""
    found = read_text(source, findings)
    if found is None:
        return None
    text, sha256 = found
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data"
        remedy = "for one object a line, end the file name in .jsonl" if lines else "correct the file there"
        findings.report(f"{source}, line {error.lineno}", f"invalid JSON: {error.msg}", remedy)
        return None
    except (ValueError, RecursionError) as error:
        findings.report(source, f"invalid JSON: {error}", "correct the file")
        return None
    if mapping.records is None and not isinstance(value, list):
        findings.report(source, f"the top level is {_described(value)}, not a list", _suggestion(value))
        return None
    steps = (mapping.records or "[]").split(".")
    rows = tuple(records_at(source, value, steps, "", {}, findings))
    return Records(columns_of(rows), rows, sha256)


def records_at(
    source: str, value: Any, steps: list[str], path: str, enclosing: Mapping[str, Any], findings: Findings
) -> Iterator[Record]:
    """Depth first: one record for each object at the end of the path `steps` inside a value that lies at `path`."""
    if not steps:
        if isinstance(value, dict):
            yield Record(f"{source}, {path}", {**enclosing, **value})
        else:
            findings.report(f"{source}, {path}", f"expected an object, got {_described(value)}", _check(steps))
        return
    step, rest = steps[0], steps[1:]
    name = step.removesuffix("[]")
    if name:
        if not isinstance(value, dict) or name not in value:
            problem = f"expected an object with {name!r}, got {_described(value)}"
            findings.report(f"{source}, {path or 'top level'}", problem, _check(steps))
            return
        enclosing = {**enclosing, **{k: v for k, v in value.items() if k != name}}
        value, path = value[name], f"{path}.{name}".lstrip(".")
    if name == step:
        yield from records_at(source, value, rest, path, enclosing, findings)
    elif isinstance(value, list):
        for i, element in enumerate(value):
            yield from records_at(source, element, rest, f"{path}[{i}]", enclosing, findings)
    else:
        problem = f"expected a list, got {_described(value)}"
        findings.report(f"{source}, {path or 'top level'}", problem, f"in `records`, write {name} without []")


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, list(value)[:8])) or 'no fields'}"
    return "a list" if isinstance(value, list) else f"{type(value).__name__} {str(value)[:40]!r}"


def _suggestion(value: Any) -> str:
    lists = [k for k, v in value.items() if isinstance(v, list)] if isinstance(value, dict) else []
    return f"say where the records are, as records: {lists[0] if lists else 'data'}[]"


def _check(steps: list[str]) -> str:
    return "correct the file, or `records` in the mapping" + (f" at {steps[0]!r}" if steps else "")


loader = Loader("JSON, a list of objects or records at a path inside", read_json, (".json",))
