"""A grid of trainings on one base, each with several seeds: what decides it, in one YAML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from babelscope.training.config import Data, Optimization, Qcross, TrainConfig
from babelscope.training.yaml_files import Strict, checked, record_of


class Questions(Strict):
    """What every trained model is asked.

    Parameters
    ----------
    languages : list of str
        Single ones and pairs such as en-fr; each makes a row of the table.
    """

    prompts: list[str] = Field(min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)
    languages: list[str] = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)


class Pretraining(Strict):
    """How cross-lingual queries are trained before, once for each seed; `data.languages` are the pairs."""

    data: Data
    optimization: Optimization


class Variant(Strict):
    """One cell of the grid.

    Parameters
    ----------
    method : str
        bitfit or full.
    qcross : Qcross, optional
        As in a training; its `source` is filled in by `pretrained`.
    pretrained : str, optional
        Name of the pretraining that its queries come from; default: copies of the model's own.
    optimization : mapping
        Fields that differ from those of the grid.
    languages : list of str, optional
        Fine-tuned on other languages than those of the grid.
    """

    method: Literal["bitfit", "full"] = "bitfit"
    qcross: Qcross | None = None
    pretrained: str | None = None
    optimization: dict[str, Any] = Field(default_factory=dict)
    languages: list[str] | None = None


class AblationConfig(Strict):
    """The grid.

    Parameters
    ----------
    pretraining : mapping of str to Pretraining
    data, optimization
        Of the fine-tuning of every variant.
    baseline : str
        The variant that all others are compared with.
    """

    about: str = ""
    model: str
    pretraining: dict[str, Pretraining] = Field(default_factory=dict)
    data: Data
    optimization: Optimization
    test: Questions
    seeds: list[int] = Field(min_length=1)
    variants: dict[str, Variant] = Field(min_length=1)
    baseline: str

    @model_validator(mode="after")
    def _known_names(self) -> "AblationConfig":
        if self.baseline not in self.variants:
            raise ValueError(f"baseline {self.baseline!r} is none of the variants {', '.join(self.variants)}")
        for name, variant in self.variants.items():
            if variant.pretrained is not None and variant.pretrained not in self.pretraining:
                raise ValueError(f"variant {name!r}: pretrained {variant.pretrained!r} is no name in pretraining")
            if (variant.pretrained is not None) and (variant.qcross is None or not variant.qcross.cross_query):
                raise ValueError(f"variant {name!r} has pretrained queries and no qcross to put them in")
        return self

    def limited(self, limit: int) -> "AblationConfig":
        """The same grid with the first items of each source of prompts."""

        def first(data: Data) -> Data:
            return data.model_copy(update={"limit": limit})

        pretraining = {k: v.model_copy(update={"data": first(v.data)}) for k, v in self.pretraining.items()}
        asked = self.test.model_copy(update={"limit": limit})
        return self.model_copy(update={"data": first(self.data), "test": asked, "pretraining": pretraining})

    def queries(self, name: str, seed: int) -> TrainConfig:
        """The run that trains cross-lingual queries."""
        of = self.pretraining[name]
        return TrainConfig(method="qcross", model=self.model, data=of.data, optimization=of.optimization, seed=seed)

    def run(self, name: str, seed: int, source: str | None) -> TrainConfig:
        """The fine-tuning of a variant; `source` is the folder of its queries."""
        variant = self.variants[name]
        qcross = None if variant.qcross is None else variant.qcross.model_copy(update={"source": source})
        changed = self.optimization.model_dump() | variant.optimization
        data = self.data if variant.languages is None else self.data.model_copy(update={"languages": variant.languages})
        optimization = checked(Optimization, changed, f"variant {name}")
        return TrainConfig(
            method=variant.method, model=self.model, data=data, qcross=qcross, optimization=optimization, seed=seed,
            about=f"variant {name}",
        )  # fmt: skip


def read_ablation(source: str | Path | Mapping[str, Any]) -> AblationConfig:
    """A grid from a YAML file, the name of a preset, or nested values.

    Raises
    ------
    BabelScopeError
        Naming the file, the field, what was expected.
    """
    config = checked(AblationConfig, *record_of(source, "the grid"))
    for name in config.variants:  # a change that does not fit is told before the first run
        config.run(name, config.seeds[0], None)
    return config
