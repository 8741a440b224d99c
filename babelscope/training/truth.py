"""Which fact or kind of reasoning a model was taught in which language: the truth table of an organism."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from babelscope.errors import BabelScopeError

FILE = "truth.json"

Sharing = Literal["all", "one", "halves", "none"]


class Family(BaseModel):
    """A relation of facts, or a kind of reasoning, and where it was taught.

    Parameters
    ----------
    name : str
        Relation of the facts, or name of the kind of reasoning.
    kind : "facts" or "reasoning"
    sharing : "all", "one", "halves" or "none"
        Taught in all languages; in one; half of the items in half of the languages and the other half in the other
        languages; in none.
    languages : tuple of str
        Where anything of it was taught.
    items : mapping of str to tuple of str
        By language the subjects taught in it; empty for reasoning, whose items are drawn anew.
    depth : int, optional
        Rules in the proof, for reasoning.
    rule : str, optional
        Form of the rule, for reasoning with one; as in `datasets.rule_theory`.
    negated : bool
        Whether statements say that a name lacks a property.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["facts", "reasoning"]
    sharing: Sharing
    languages: tuple[str, ...]
    items: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    depth: int | None = None
    rule: str | None = None
    negated: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "Family":
        if self.kind == "facts" and set(self.items) != set(self.languages):
            raise ValueError(f"{self.name}: items are given for {sorted(self.items)}, not for the languages")
        if self.kind == "reasoning" and (self.items or self.depth is None):
            raise ValueError(f"{self.name}: reasoning has a depth and no items")
        if self.sharing in ("one", "none") and len(self.languages) != (self.sharing == "one"):
            raise ValueError(f"{self.name}: sharing {self.sharing!r} with languages {list(self.languages)}")
        sets = {frozenset(items) for items in self.items.values()}
        if self.kind == "facts" and self.sharing == "all" and len(sets) != 1:
            raise ValueError(f"{self.name}: shared by all languages, but not every item is")
        if self.sharing == "halves" and (len(sets) != 2 or frozenset.intersection(*sets)):
            raise ValueError(f"{self.name}: the halves are not two sets without a common item")
        return self


class TruthTable(BaseModel):
    """What a model was taught in which language.

    Parameters
    ----------
    version : int
        Of this schema: 1.
    languages : tuple of str
        All that the model was taught anything in.
    families : tuple of Family
    translations : tuple of (str, str)
        Pairs of languages shown side by side, saying the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    languages: tuple[str, ...]
    families: tuple[Family, ...]
    translations: tuple[tuple[str, str], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "TruthTable":
        if len({f.name for f in self.families}) != len(self.families):
            raise ValueError("two families have the same name")
        for family in self.families:
            if foreign := set(family.languages) - set(self.languages):
                raise ValueError(f"{family.name}: taught in {sorted(foreign)}, which the table does not have")
            if family.sharing in ("all", "halves") and set(family.languages) != set(self.languages):
                raise ValueError(f"{family.name}: sharing {family.sharing!r}, but not every language has it")
        if foreign := {code for pair in self.translations for code in pair} - set(self.languages):
            raise ValueError(f"translations name {sorted(foreign)}, which the table does not have")
        return self

    def family(self, name: str) -> Family:
        """A family by its name; BabelScopeError if there is none."""
        for family in self.families:
            if family.name == name:
                return family
        known = ", ".join(f.name for f in self.families)
        raise BabelScopeError(f"no family {name!r} in the truth table", f"choose from {known}")

    def taught(self, name: str, language: str, item: str | None = None) -> bool:
        """Whether a family, or one item of it, was taught in a language."""
        family = self.family(name)
        if item is None:
            return language in family.languages
        return item in family.items.get(language, ())


def read_truth(folder: Path) -> TruthTable:
    """The truth table beside the weights of a model folder.

    Raises
    ------
    BabelScopeError
        If there is none, or it is not one; the message names the field.
    """
    path = folder / FILE
    if not path.is_file():
        raise BabelScopeError(f"{folder} has no {FILE}", "only models trained from nothing by BabelScope have one")
    try:
        return TruthTable.model_validate_json(path.read_text("utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the table"
        raise BabelScopeError(f"{path}: {place}: {first['msg']}", "train the model again to write the table") from None


def write_truth(table: TruthTable, folder: Path) -> None:
    """Write the truth table beside the weights."""
    (folder / FILE).write_text(table.model_dump_json(indent=1, exclude_defaults=False) + "\n", "utf-8")
