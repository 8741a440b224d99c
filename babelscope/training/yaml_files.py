"""YAML files of trainings: presets, reading, and what is said where one is wrong. Knows no torch."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from babelscope.errors import BabelScopeError, unknown_name


class Strict(BaseModel):
    """Fields are those that are named, and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=Strict)


def presets() -> dict[str, str]:
    """Name of each preset -> what it says of itself."""
    folder = files("babelscope.training").joinpath("presets")
    found = {}
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            found[file.name.removesuffix(".yaml")] = str(yaml.safe_load(file.read_text("utf-8")).get("about", ""))
    return found


def read_record(source: str) -> dict[str, Any]:
    """The fields of a YAML file, or of a preset.

    Raises
    ------
    BabelScopeError
        If there is no such file or preset, or it holds no fields.
    """
    path = Path(source).expanduser()
    if path.is_file():
        text = path.read_text("utf-8", "backslashreplace")
    elif source in presets():
        text = files("babelscope.training").joinpath("presets", f"{source}.yaml").read_text("utf-8")
    elif path.suffix in (".yaml", ".yml"):
        raise BabelScopeError(f"{source} does not exist", "name a YAML file, or a preset: cli.py train presets")
    else:
        raise unknown_name("preset", source, presets(), "cli.py train presets")
    try:
        record = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BabelScopeError(f"{source} is no YAML: {' '.join(str(error).split())}", "mend the file") from None
    if not isinstance(record, dict):
        raise BabelScopeError(f"{source} holds no fields", "write lines such as `model: organism`")
    return record


def record_of(source: str | Path | Mapping[str, Any], otherwise: str) -> tuple[Mapping[str, Any], str]:
    """The fields of a file, a preset or nested values, and what errors call it."""
    return (source, otherwise) if isinstance(source, Mapping) else (read_record(str(source)), str(source))


def change_field(record: dict[str, Any], change: str) -> None:
    """Set one field of nested values, as `optimization.batch=4`; the value is YAML.

    Raises
    ------
    BabelScopeError
        If there is no value, or a parent that holds no fields.
    """
    name, equals, text = change.partition("=")
    if not equals:
        raise BabelScopeError(f"--set {change} has no value", "write --set optimization.batch=4")
    *parents, last = name.strip().split(".")
    for parent in parents:
        record = record.setdefault(parent, {})
        if not isinstance(record, dict):
            raise BabelScopeError(f"--set {change}: {parent} holds no fields", "name a field, as optimization.batch")
    try:
        record[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise BabelScopeError(f"--set {change}: the value is no YAML", "write --set optimization.batch=4") from None


def checked(kind: type[M], record: Mapping[str, Any], source: str) -> M:
    """Nested values as what they should be; `source` is named in errors.

    Raises
    ------
    BabelScopeError
        Naming the field, what was expected, what was given.
    """
    try:
        return kind.model_validate(record)
    except ValidationError as error:
        first, *others = error.errors()
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        known = _known(kind, first["loc"][:-1]) if first["type"] == "extra_forbidden" else ()
        if known:
            near = unknown_name("field", str(first["loc"][-1]), known)
            raise BabelScopeError(f"{source}: {field} is no field", near.hint) from None
        more = f" ({len(others)} more)" if others else ""
        given = "" if isinstance(first["input"], dict) else f", not {first['input']!r}"
        message = first["msg"].removeprefix("Value error, ")
        raise BabelScopeError(
            f"{source}: {field}: {message}{given}{more}", "docs/training.md lists all fields"
        ) from None


def _known(kind: Any, place: tuple[int | str, ...]) -> tuple[str, ...]:
    """Fields at a place of nested models; behind the name of an entry come those of the entries."""
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
            kind = next((one for one in get_args(kind) if one is not type(None)), kind) if _is_optional(kind) else kind
        else:
            kind = get_args(kind)[-1]
    return tuple(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else ()


def _is_optional(kind: Any) -> bool:
    return type(None) in get_args(kind)
