"""What decides a training run: one YAML file, checked before a model is loaded. Knows no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from babelscope.errors import BabelScopeError
from babelscope.qcross.config import QcrossConfig
from babelscope.training.yaml_files import Strict, change_field, checked, read_record

METHODS = {
    "lora": "low-rank adapters beside frozen weights, kept or merged",
    "bitfit": "biases alone, and the head of a classifier",
    "full": "all weights",
    "qcross": "cross-lingual queries alone, by masked or causal language modeling on code-switched pairs",
}
Method = Literal["lora", "bitfit", "full", "qcross"]


class Data(Strict):
    """What is trained on: prompts with a right answer, or plain text.

    Parameters
    ----------
    prompts : list of str
        Names of generated sets, and files, as for `capture`.
    parameters : mapping
        Fields of the recipe of the generated sets, as `items`, `seed`, `compat`. Their split is the train split unless
        this says otherwise.
    rules : list of str
        Only items of these rules; none for all.
    languages : list of str, optional
        Default: all.
    text : list of str
        Files of plain text in UTF-8, one document a line; or `.jsonl` as `data mix` writes it.
    end_of_text : bool
        Whether the token that ends a text is to be predicted behind an answer. A model that never saw it needs many
        steps for that alone.
    limit : int, optional
        First items of each source.
    one_language_each : bool
        Each item in one of the languages alone, drawn evenly by the seed: as many examples as one language would give
        (arXiv:2310.15258, the authors' fine-tuning on en and en-fr).
    parallel : bool
        A pair such as en-fr is the context in both languages, not the context and the question.
    """

    prompts: list[str] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(default_factory=dict)
    rules: list[str] = Field(default_factory=list)
    one_language_each: bool = False
    parallel: bool = False
    languages: list[str] | None = None
    text: list[str] = Field(default_factory=list)
    end_of_text: bool = True
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_kind(self) -> "Data":
        if bool(self.prompts) == bool(self.text):
            raise ValueError("name prompts or text, one of them")
        return self


class Lora(Strict):
    """Low-rank adapters; the defaults are those of Hu et al. (2024), arXiv:2406.16655, appendix D.

    Parameters
    ----------
    r, alpha : int
        Rank, and the scale of the update times the rank.
    targets : list of str
        Names of linear layers; none for all but the unembedding.
    merge : bool
        Write the model with the adapter added to its weights.
    """

    r: int = Field(default=128, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: list[str] = Field(default_factory=list)
    merge: bool = False


class Qcross(QcrossConfig):
    """Cross-lingual queries that the model gets before it is trained (arXiv:2310.15258).

    Parameters
    ----------
    source : str, optional
        Folder that `train qcross` wrote. Default: each is a copy of the layer's own query.
    """

    source: str | None = None


class Optimization(Strict):
    """How weights move.

    Parameters
    ----------
    batch, accumulation : int
        Examples of one pass on one device, and passes before each step.
    warmup_steps : int
    schedule : str
        As transformers names it: cosine, linear, constant, ...
    over_length : {"refuse", "truncate", "drop"}
        What happens to an example longer than `max_length` tokens. What is cut off is the beginning.
    """

    learning_rate: float = Field(gt=0)
    epochs: float = Field(default=1, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    batch: int = Field(default=8, ge=1)
    accumulation: int = Field(default=1, ge=1)
    schedule: str = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    clip: float = Field(default=1.0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = False
    max_length: int = Field(default=1024, ge=8)
    over_length: Literal["refuse", "truncate", "drop"] = "refuse"


class Capture(Strict):
    """Prompts that are captured while the model is trained: at step 0, every so many steps, and at the end.

    Parameters
    ----------
    every : int
        Optimizer steps between two stores.
    prompts, parameters, languages, limit
        As in `Data`; generated sets are of their test split unless `parameters` says otherwise.
    sites, positions : list of str
        As for `capture`.
    """

    every: int = Field(ge=1)
    prompts: list[str] = Field(min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)
    languages: list[str] | None = None
    limit: int | None = Field(default=32, ge=1)
    sites: list[str] = Field(default_factory=lambda: ["resid.post", "mlp.act"])
    positions: list[str] = Field(default_factory=lambda: ["last"])


class TrainConfig(Strict):
    """One run.

    Parameters
    ----------
    mode : {"corrected", "paper"}
        "paper" repeats what a paper did where it was a flaw: BitFit then leaves a new classifier frozen and random
        (arXiv:2310.15258, the authors' baseline).
    model : str
        Folder, hub id, or the name of an embedded model.
    qcross : Qcross, optional
        The joint attention of the model that is trained; `train qcross` has it by default.
    capture : Capture, optional
        What is captured while the model is trained; needs a whole model on one device, so no FSDP and no DeepSpeed.
    save_steps, log_steps : int, optional
        Default: ten checkpoints, a hundred entries of the log.
    trainer : mapping
        Further arguments of transformers' `TrainingArguments`, as `fsdp` or `deepspeed`.
    """

    method: Method
    mode: Literal["corrected", "paper"] = "corrected"
    model: str
    data: Data
    lora: Lora = Lora()
    qcross: Qcross | None = None
    optimization: Optimization
    capture: Capture | None = None
    seed: int = 0
    save_steps: int | None = Field(default=None, ge=1)
    log_steps: int | None = Field(default=None, ge=1)
    trainer: dict[str, Any] = Field(default_factory=dict)
    about: str = ""

    @model_validator(mode="after")
    def _fitting(self) -> "TrainConfig":
        if self.method == "lora" and self.qcross is not None:
            raise ValueError("qcross is trained by qcross, bitfit or full: an adapter would leave its queries out")
        if self.method == "qcross" and self.qcross is not None and not self.qcross.cross_query:
            raise ValueError("qcross.cross_query is false, so there is nothing to train")
        if self.capture is not None and {"fsdp", "deepspeed"} & self.trainer.keys():
            raise ValueError("capture needs the whole model on each device: leave it out, or fsdp and deepspeed")
        return self


def read_config(source: str | Path, method: str | None = None, changes: Sequence[str] = ()) -> TrainConfig:
    """A configuration from a YAML file or the name of a preset.

    Parameters
    ----------
    method : str, optional
        That of the command, which the file need not repeat.
    changes : sequence of str
        As `optimization.batch=4`; the value is YAML.

    Raises
    ------
    BabelScopeError
        Naming the file, the field, what was expected.
    """
    record = read_record(str(source))
    if method is not None:
        said = record.setdefault("method", method)
        if said != method:
            raise BabelScopeError(f"{source}: method is {said!r}, and the command is `train {method}`", f"train {said}")
    for change in changes:
        change_field(record, change)
    return config_of(record, str(source))


def config_of(record: Mapping[str, Any], source: str = "configuration") -> TrainConfig:
    """A configuration from nested values; `source` is named in errors."""
    return checked(TrainConfig, record, source)
