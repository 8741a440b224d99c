"""A chain of trainings, each from a base or from an earlier one: the proficiency ladder of arXiv:2406.16655."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from babelscope.training.config import TrainConfig, config_of
from babelscope.training.yaml_files import Strict, checked, record_of


class ChainConfig(Strict):
    """The chain.

    Parameters
    ----------
    model : str
        What every stage starts from that names no other.
    stages : mapping
        Name -> fields of a training, and `after`, the name of an earlier stage. A LoRA stage that others start from has
        to be merged.
    """

    about: str = ""
    model: str
    stages: dict[str, dict[str, Any]] = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> "ChainConfig":
        earlier: list[str] = []
        for name, stage in self.stages.items():
            after = stage.get("after")
            if after is not None and after not in earlier:
                raise ValueError(f"stage {name!r} comes after {after!r}, which is no earlier stage")
            if after is not None and _keeps_adapter(self.stages[after]):
                raise ValueError(f"stage {name!r} starts from an adapter: set lora.merge in {after!r}")
            earlier.append(name)
        return self

    def stage(self, name: str, folder: Path) -> TrainConfig:
        """The training of a stage, from what earlier ones wrote to `folder`."""
        fields = {k: v for k, v in self.stages[name].items() if k != "after"}
        after = self.stages[name].get("after")
        return config_of({"model": self.model if after is None else str(folder / after), **fields}, f"stage {name}")


def read_chain(source: str | Path | Mapping[str, Any]) -> ChainConfig:
    """A chain from a YAML file, the name of a preset, or nested values.

    Raises
    ------
    BabelScopeError
        Naming the file, the stage, what was expected.
    """
    chain = checked(ChainConfig, *record_of(source, "the chain"))
    for name in chain.stages:
        chain.stage(name, Path())
    return chain


def _keeps_adapter(stage: Mapping[str, Any]) -> bool:
    return stage.get("method") == "lora" and not (stage.get("lora") or {}).get("merge")
