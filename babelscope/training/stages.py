"""What the recipes of the organisms share: phases and stages of training from nothing, resumable."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from babelscope.training.corpus import Ingredient

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training: `prompts` prompts of a mixture, `batch` at a step."""

    mixture: tuple[Ingredient, ...]
    prompts: int
    batch: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Phases under one learning-rate schedule: linear warm-up over 100 steps, then cosine decay to a tenth.

    With `stop`, training ends after that many steps of the schedule.
    """

    phases: tuple[Phase, ...]
    learning_rate: float
    stop: int | None = None


def shortened(stages: Sequence[Stage], limit: int) -> tuple[Stage, ...]:
    """The same stages with at most `limit` prompts in each phase."""
    return tuple(
        replace(stage, phases=tuple(replace(p, prompts=min(limit, p.prompts)) for p in stage.phases))
        for stage in stages
    )


class Batches(TorchDataset[dict[str, torch.Tensor]], Generic[E]):
    """The phases one after the other, each in batches of similar length in random order.

    Parameters
    ----------
    phases : sequence of (encoded, batch)
        Encoded prompts of each phase, and how many make a batch.
    length : function from an encoded prompt to its number of tokens
    collate : function from the encoded prompts of a batch to the inputs of the model
    seed : int
    """

    def __init__(
        self,
        phases: Sequence[tuple[Sequence[E], int]],
        length: Callable[[E], int],
        collate: Callable[[list[E]], dict[str, torch.Tensor]],
        seed: int,
    ) -> None:
        rng = np.random.default_rng(seed)
        self._collate = collate
        self._rows: list[list[E]] = []
        for encoded, batch in phases:
            order = rng.permutation(len(encoded))
            chunk = batch * 8
            for start in range(0, len(order), chunk):
                part = sorted((encoded[i] for i in order[start : start + chunk]), key=length)
                rows = [part[i : i + batch] for i in range(0, len(part), batch)]
                self._rows += [rows[i] for i in rng.permutation(len(rows))]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self._collate(self._rows[index])


class StageTrainer(Trainer):
    """Batches in their order, and the share of answer tokens predicted right in the log."""

    _right = 0
    _asked = 0

    def count(self, logits: torch.Tensor, target: torch.Tensor) -> None:
        """Take predictions `(answer token, vocabulary)` into the logged accuracy."""
        self._right += int((logits.argmax(-1) == target).sum())
        self._asked += len(target)

    def _get_train_sampler(self, *_: Any) -> torch.utils.data.Sampler[int]:
        # The order of the batches is the curriculum.
        return torch.utils.data.SequentialSampler(cast(Batches[Any], self.train_dataset))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the share of answer tokens predicted right since the last entry."""
        if self._asked:
            logs["answer_accuracy"] = self._right / self._asked
        self._right = self._asked = 0
        super().log(logs, *args, **kwargs)


def set_seeds(seed: int) -> None:
    """Seed what a training draws from."""
    random.seed(seed)
    torch.manual_seed(seed)


def train_stages(
    model: PreTrainedModel,
    trainer: type[StageTrainer],
    stages: Sequence[Stage],
    batches: Callable[[int], Batches[Any]],
    folder: Path,
    seed: int,
    *,
    resume: bool,
) -> list[dict[str, float]]:
    """Train every stage in order, in place, with checkpoints under `folder`. Returns the joined log.

    `batches` gives those of a stage by its number, and is not asked for a stage that was stopped as planned.
    """
    log: list[dict[str, float]] = []
    # Second moments of rare tokens decay into subnormal numbers, which made a CPU step four times slower.
    torch.set_flush_denormal(True)
    try:
        for number, stage in enumerate(stages):
            place = folder / str(number)
            found = _finished(model, stage, place) if resume else None
            log += found or _train_stage(model, trainer, stage, batches(number), place, seed, resume=resume)
    finally:
        torch.set_flush_denormal(False)
    return log


def _finished(model: PreTrainedModel, stage: Stage, folder: Path) -> list[dict[str, float]] | None:
    """Load the weights of a stage that reached its `stop`. Returns its log, or None if it did not."""
    last = get_last_checkpoint(str(folder)) if folder.exists() else None  # type: ignore[no-untyped-call]
    if last is None or stage.stop is None:
        return None
    state = TrainerState.load_from_json(str(Path(last) / "trainer_state.json"))
    if state.global_step < stage.stop:
        return None
    model.load_state_dict(type(model).from_pretrained(last).state_dict())
    return list(state.log_history)


def _train_stage(
    model: PreTrainedModel,
    kind: type[StageTrainer],
    stage: Stage,
    batches: Batches[Any],
    folder: Path,
    seed: int,
    *,
    resume: bool,
) -> list[dict[str, float]]:
    """Train in place; a finished stage is its last checkpoint. Returns the log."""
    trainer = kind(
        model=model,
        args=_arguments(stage, folder, len(batches), seed),
        train_dataset=batches,
        data_collator=lambda rows: rows[0],
        callbacks=None if stage.stop is None else [_StopAfter(stage.stop)],
    )
    begun = resume and folder.exists() and any(folder.iterdir())
    trainer.train(resume_from_checkpoint=begun or None)
    return list(trainer.state.log_history)


class _StopAfter(TrainerCallback):
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        if state.global_step >= self._steps:
            control.should_training_stop = control.should_save = True
        return control


def _arguments(stage: Stage, folder: Path, steps: int, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,  # one element of the dataset is a whole batch
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=100,
        adam_beta2=0.98,
        weight_decay=0.05,
        max_grad_norm=1.0,
        save_steps=max(5, steps // 10),
        save_total_limit=2,
        logging_steps=max(1, steps // 100),
        seed=seed,
        report_to="none",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
    )
