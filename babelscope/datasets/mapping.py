"""A mapping: which field of a researcher's file is the key, the language, the text and so on."""

import shlex
import string
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from babelscope.errors import BabelScopeError, unknown_name

BUNDLED = Path(__file__).parent / "mappings"
ROW = "row"
LISTS = ("options", "columns", "covariates", "same")


class PromptMapping(BaseModel):
    r"""What the fields of a file mean. A field inside another is named with dots: `answers.0.text`.

    Parameters
    ----------
    key : str
        Field that is equal in all translations of an item, or `row`: the position in the file, for files
        that are parallel line by line. Nothing is ever joined by position unless this says so.
    language : str or None
        Field with the language code, by default `language`; not for one file per language, where the path has it.
    text : str
        Field with the text, or a template such as `"{context}\n{question}"`. Each field becomes a segment of
        that name, or of the name after a colon: `{phrase:question}`. `{options}` stands for the options as
        lettered lines.
    options : str, tuple of str or None
        A field that holds a list, or several fields.
    gold : str or None
        Field that says which option is right.
    gold_is : {"letter", "index", "number", "text"} or None
        How it says so: `A`, from 0, from 1, or the option itself. By default told by its form (a number counts
        from 0); a value that can be read in two ways is refused.
    truth : str or None
        Field that says whether the text is true: true and false, or 1 and 0. The options are then the words for false
        and true in the language of the row, so that 1 is the right one where it is true. In a language `a-b` the
        segment `context` is in a, all else in b.
    answer : str or None
        Field with the right answer as text; by default the text of the gold option.
    covariates : mapping
        Name and field of facts that are equal in all languages; a list means names equal to the fields.
    same : tuple of str
        More fields that must be equal in all languages, such as a numeric answer. A guard for `key: row`.
    records : str or None
        Where the records of a JSON file are: `data[].paragraphs[].qas[]`. Fields of the enclosing objects
        can be used too; the innermost wins.
    columns : tuple of str
        Names of the columns of a CSV or TSV file without a header.
    quotes : bool
        Whether `"` encloses fields of a CSV or TSV file.
    split : str or None
        Which split of a Hugging Face dataset.
    format : str or None
        A loader, where the file name does not tell (`cli.py ls loaders`).
    name : str or None
        What the prompt set is called; by default after the file.
    strict : bool
        Whether an item that a language lacks is refused instead of noted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_min_length=1)

    key: str = "item"
    language: str | None = None
    text: str = "text"
    options: str | tuple[str, ...] | None = None
    gold: str | None = None
    gold_is: Literal["letter", "index", "number", "text"] | None = None
    truth: str | None = None
    answer: str | None = None
    covariates: dict[str, str] = {}
    same: tuple[str, ...] = ()
    records: str | None = None
    columns: tuple[str, ...] = ()
    quotes: bool = True
    split: str | None = None
    format: str | None = None
    name: str | None = None
    strict: bool = False

    @field_validator("covariates", mode="before")
    @classmethod
    def _names_are_fields(cls, value: Any) -> Any:
        return {name: name for name in value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        for _, field, segment in self.pieces():
            if field == "" or segment == "":
                raise ValueError("text: a template names its fields, as {question}; write {{}} for plain braces")
        if not self.text_fields():
            raise ValueError("text: the template has no field, so every prompt would be the same")
        if self.truth is not None and (self.options is not None or self.gold is not None):
            raise ValueError("truth: brings its own options, so leave out `options` and `gold`")
        if self.gold is not None and self.options is None:
            raise ValueError("gold: says which option is right, so `options` is needed too (or use `answer`)")
        if self.gold_is is not None and self.gold is None:
            raise ValueError("gold_is: needs `gold`, the field it describes")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("columns: each name may occur once")
        return self

    def pieces(self) -> tuple[tuple[str, str | None, str | None], ...]:
        """The template as (literal text, field after it or None, name of its segment).

        A plain field name is a template of itself.
        """
        if "{" not in self.text and "}" not in self.text:
            return (("", self.text, self.text),)
        found: list[tuple[str, str | None, str | None]] = []
        try:
            parsed = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"text: {error}; write {{{{ and }}}} for plain braces") from None
        for literal, field, segment, conversion in parsed:
            if conversion or (segment and not segment.isidentifier()):
                raise ValueError(f"text: after {field} only the name of a segment may stand, as {{{field}:question}}")
            found.append((literal, field, segment or field))
        return tuple(found)

    def text_fields(self) -> tuple[str, ...]:
        """Fields of the template, in order."""
        return tuple(field for _, field, _ in self.pieces() if field is not None)

    @property
    def has_options(self) -> bool:
        """Whether prompts have options, so that `{options}` is not a field."""
        return self.options is not None or self.truth is not None

    def option_fields(self) -> tuple[str, ...]:
        """Fields that hold options: none, one list or several texts."""
        if self.options is None:
            return ()
        return (self.options,) if isinstance(self.options, str) else self.options

    def fields(self) -> tuple[str, ...]:
        """Every field that a record must have (the language aside), each once."""
        shown = [f for f in self.text_fields() if not (f == "options" and self.has_options)]
        key = [] if self.key == ROW else [self.key]
        more = [f for f in (self.gold, self.truth, self.answer) if f is not None]
        return tuple(dict.fromkeys([*key, *shown, *self.option_fields(), *more, *self.covariates.values(), *self.same]))


def read_mapping(source: "PromptMapping | Mapping[str, Any] | Path | str | None") -> PromptMapping:
    r"""A mapping from whatever describes it.

    Parameters
    ----------
    source : PromptMapping, mapping, Path, str or None
        None: fields called `item`, `language` and `text`. A str is a YAML or TOML file, the name of a bundled
        mapping (`xquad`, `mgsm`), or `key=id text="{context}\n{question}" options=a,b,c,d`.

    Raises
    ------
    BabelScopeError
        If the file cannot be read, a field is unknown, or a value does not fit.
    """
    match source:
        case PromptMapping():
            return source
        case None:
            return PromptMapping()
        case str() if "=" in source:
            return _validated("mapping", _key_values(source))
        case str() | Path():
            path = _mapping_file(source)
            return _validated(str(path), _parsed(path))
    return _validated("mapping", dict(source))


def bundled_mappings() -> tuple[str, ...]:
    """Names of the mappings that come with the package."""
    return tuple(sorted(p.stem for p in BUNDLED.glob("*.yaml")))


def _mapping_file(source: str | Path) -> Path:
    if isinstance(source, str) and source in bundled_mappings():
        return BUNDLED / f"{source}.yaml"
    path = Path(source)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml", ".toml"):
        raise BabelScopeError(f"there is no mapping file {source}", "check the path")
    raise unknown_name("mapping", str(source), bundled_mappings())


class _Loader(yaml.SafeLoader):
    """YAML in which true and false alone are booleans: `no` is Norwegian, and `on` and `y` may be columns."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if first in "tTfF" or not tag.endswith(":bool")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        reason = " ".join(str(error).split())
        hint = 'quote values that begin with a brace, as text: "{question}"'
        raise BabelScopeError(f"{path}: is not a readable mapping: {reason}", hint) from None
    if not isinstance(values, dict):
        raise BabelScopeError(f"{path}: expected lines such as `key: id`", "see docs/prompts.md for an example")
    return {str(k): v for k, v in values.items()}


def _key_values(text: str) -> dict[str, Any]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BabelScopeError(f"mapping {text!r}: {error}", "close every quote") from None
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise BabelScopeError(
                f"mapping {text!r}: {word!r} is not key=value", "quote values with spaces, as text='{a} {b}'"
            )
        if name in LISTS and ("," in value or name != "options"):
            values[name] = value.split(",")
        else:
            values[name] = value.replace("\\n", "\n").replace("\\t", "\t")
    return values


def _validated(where: str, values: Mapping[str, Any]) -> PromptMapping:
    try:
        return PromptMapping.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        raise unknown_name("mapping field", place, PromptMapping.model_fields)
    reason = first["msg"].removeprefix("Value error, ")
    raise BabelScopeError(f"{where}: {place}{': ' if place else ''}{reason}", "docs/prompts.md explains every field")
