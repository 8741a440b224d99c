"""A file that names parts which the locator cannot find; they are proven by the same laws as found ones."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from torch import nn

from babelscope.errors import BabelScopeError

# Parts of which each block has one; their paths say `{layer}` where the number of the block stands.
PER_LAYER = ("attention_output", "down_projection", "activation")


@dataclass(frozen=True, slots=True, eq=False)
class NamedParts:
    """Parts of one block that a file names; None for what the locator is left to find."""

    attention_output: nn.Module | None = None
    down_projection: nn.Module | None = None
    activation: nn.Module | None = None

    def __bool__(self) -> bool:
        return any((self.attention_output, self.down_projection, self.activation))


class StackPaths(BaseModel):
    """Module paths of one stack, as `model.named_modules()` gives them. What is left out is located.

    Parameters
    ----------
    layers : str or None
        The list of blocks, as `model.layers`, or each block, as `model.block_{layer}`.
    attention_output, down_projection, activation : str or None
        In each block; layers in which the path leads nowhere are left to the locator.
    final_norm, embedding : str or None
        The embedding is the module that returns what block 0 reads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: str | None = None
    attention_output: str | None = None
    down_projection: str | None = None
    activation: str | None = None
    final_norm: str | None = None
    embedding: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        for name in sorted(self.model_fields_set):
            if getattr(self, name) in (None, "", StackPaths()):
                raise ValueError(f"{name} names nothing")
        for name in PER_LAYER:
            path = getattr(self, name)
            if path is not None and "{layer}" not in path:
                raise ValueError(f"{name}: {path!r} lacks {{layer}}, which stands for the number of the block")
        return self

    def blocks(self, model: nn.Module) -> Sequence[nn.Module] | None:
        """The blocks that are named, or None where they are to be located.

        Raises
        ------
        BabelScopeError
            If the path leads to none.
        """
        if self.layers is None:
            return None
        if "{layer}" in self.layers:
            found: list[nn.Module] = []
            while (block := _at(model, _numbered(self.layers, len(found)))) is not None:
                found.append(block)
        else:
            found = list(getattr(_at(model, self.layers), "children", list)())
        if not found:
            raise _leads_nowhere(model, "layers", self.layers)
        return found

    def parts(self, model: nn.Module, layer: int) -> NamedParts:
        """What is named in one block."""
        paths = {name: getattr(self, name) for name in PER_LAYER}
        return NamedParts(**{n: _at(model, _numbered(p, layer)) for n, p in paths.items() if p is not None})

    def check(self, model: nn.Module, n_layers: int) -> None:
        """Refuse a path that leads nowhere, whatever the layer.

        Raises
        ------
        BabelScopeError
            Naming the part and the path.
        """
        for name in PER_LAYER:
            path = getattr(self, name)
            if path is not None and not any(_at(model, _numbered(path, i)) for i in range(n_layers)):
                raise _leads_nowhere(model, name, path)

    def module(self, model: nn.Module, name: str) -> nn.Module | None:
        """The part of that name, which exists once, or None where it is not named.

        Raises
        ------
        BabelScopeError
            If its path leads nowhere.
        """
        path = getattr(self, name)
        if path is None:
            return None
        found = _at(model, path)
        if found is None:
            raise _leads_nowhere(model, name, path)
        return found


class AnatomyFile(StackPaths):
    """What a file says: the paths of the only stack, or those of `enc` and `dec`."""

    enc: StackPaths | None = None
    dec: StackPaths | None = None

    def stacks(self, tags: Collection[str]) -> dict[str, StackPaths]:
        """The paths of each stack of a model, whose only one is called "".

        Raises
        ------
        BabelScopeError
            If the file names parts of a stack that the model does not have.
        """
        one = "" in tags
        foreign = [name for name in type(self).model_fields if (name in ("enc", "dec")) == one and getattr(self, name)]
        if foreign:
            raise BabelScopeError(
                f"anatomy file: {foreign[0]}: this model has {'one stack' if one else 'an encoder and a decoder'}",
                "write its parts at the top" if one else f"write {foreign[0]} below enc: or dec:",
            )
        return {tag: {"": self, "enc": self.enc, "dec": self.dec}[tag] or StackPaths() for tag in tags}

    @property
    def sha256(self) -> str:
        """Of what the file says, whatever its layout: it decides which tensors are captured."""
        return hashlib.sha256(self.model_dump_json(exclude_none=True).encode()).hexdigest()


def read_anatomy(path: str | Path) -> AnatomyFile:
    """Read a YAML file of module paths.

    Raises
    ------
    BabelScopeError
        If there is no such file, or if it says something else.
    """
    file = Path(path).expanduser()
    hint = f"known: {', '.join(StackPaths.model_fields)}; in encoder-decoders below enc: and dec:"
    try:
        record = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BabelScopeError(f"anatomy file {file} cannot be read: {error}", "check its name") from None
    except yaml.YAMLError as error:
        raise BabelScopeError(f"anatomy file {file} is no YAML: {str(error).splitlines()[0]}", hint) from None
    if not isinstance(record, Mapping) or not record:
        raise BabelScopeError(f"anatomy file {file} names no part", hint)
    try:
        return AnatomyFile(**record)
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where, why = ".".join(map(str, first["loc"])), str(first["msg"]).removeprefix("Value error, ")
        raise BabelScopeError(f"anatomy file {file}: {where + ': ' if where else ''}{why}", hint) from None


def _numbered(path: str, layer: int) -> str:
    return path.replace("{layer}", str(layer))


def _at(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _leads_nowhere(model: nn.Module, name: str, path: str) -> BabelScopeError:
    parts = _numbered(path, 0).split(".")
    known = next((p for n in range(len(parts), 0, -1) if _at(model, p := ".".join(parts[:n])) is not None), "")
    inside = ", ".join(n for n, _ in model.get_submodule(known).named_children()) or "nothing"
    return BabelScopeError(
        f"anatomy file: {name} {path!r} leads to no module of {type(model).__name__}",
        f"inside {known or 'the model'} there is {inside}",
    )
