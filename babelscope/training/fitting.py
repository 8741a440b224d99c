"""The training loop: transformers' Trainer with progress, checkpoints that survive, and an end that is always told."""

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from babelscope.errors import BabelScopeError
from babelscope.training.config import TrainConfig

Progress = Callable[[int, int, str], None]


class TrainingStoppedError(BabelScopeError):
    """The user asked to stop; everything up to the last step is in a checkpoint."""


class NotFiniteError(BabelScopeError):
    """The loss left the numbers; the last good checkpoint is kept."""


def fit(
    model: nn.Module,
    examples: Any,
    collate: Callable[[Sequence[Any]], dict[str, Tensor]],
    config: TrainConfig,
    folder: Path,
    *,
    progress: Progress | None = None,
    stopped: Callable[[], int] = lambda: 0,
    callbacks: Sequence[TrainerCallback] = (),
    change: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> list[dict[str, float]]:
    """Train a model in place. It goes on from the newest whole checkpoint in `folder`, where there is one.

    Equal configuration, examples and hardware give equal weights, however often the run was killed in between.

    Parameters
    ----------
    examples : sequence
        A torch Dataset, or anything with a length and numbered rows: what `collate` makes batches of.
    folder : Path
        Of the checkpoints.
    change : callable, optional
        What becomes of a batch where its step begins; it may draw random numbers.
    stopped : callable
        Number of the signal that asked to stop, or 0; asked after every step.

    Returns
    -------
    list of dict
        The log of all steps, those before an interruption included.

    Raises
    ------
    TrainingStoppedError, NotFiniteError
    """
    report = _Report(progress, stopped)
    trainer = _Trainer(
        model=model,
        args=arguments(config, len(examples), folder),
        train_dataset=examples,
        data_collator=collate,
        callbacks=[report, *callbacks],
    )
    trainer.change = change
    trainer.pop_callback(_printer())
    newest = last_checkpoint(folder, tidy=trainer.is_world_process_zero())
    # Second moments of rare tokens decay into subnormal numbers, which make a step on a CPU several times slower.
    torch.set_flush_denormal(True)
    try:
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        trainer.accelerator.wait_for_everyone()  # each process writes a file into the last checkpoint
    finally:
        torch.set_flush_denormal(False)
    if report.signal:
        raise TrainingStoppedError(
            f"stopped after step {trainer.state.global_step} of {trainer.state.max_steps}; a checkpoint was written",
            "run the same command with --resume to continue",
            128 + report.signal,
        )
    return [dict(entry) for entry in trainer.state.log_history]


def steps_of(config: TrainConfig, n_examples: int, devices: int = 1) -> int:
    """Optimizer steps of a run."""
    wanted = config.optimization
    if wanted.max_steps:
        return wanted.max_steps
    batches = -(-n_examples // (wanted.batch * devices))
    return math.ceil(wanted.epochs * max(1, -(-batches // wanted.accumulation)))


def arguments(config: TrainConfig, n_examples: int, folder: Path) -> TrainingArguments:
    """What Trainer is told."""
    wanted, steps = config.optimization, steps_of(config, n_examples)
    told: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": wanted.epochs,
        "max_steps": wanted.max_steps or -1,
        "per_device_train_batch_size": wanted.batch,
        "gradient_accumulation_steps": wanted.accumulation,
        "learning_rate": wanted.learning_rate,
        "lr_scheduler_type": wanted.schedule,
        "warmup_steps": wanted.warmup_steps,
        "max_grad_norm": wanted.clip,
        "weight_decay": wanted.weight_decay,
        "bf16": wanted.precision == "bfloat16",
        "fp16": wanted.precision == "float16",
        "activation_checkpointing": wanted.gradient_checkpointing,
        "save_steps": config.save_steps or max(1, steps // 10),
        "save_total_limit": 2,
        "logging_steps": config.log_steps or max(1, steps // 100),
        "logging_nan_inf_filter": False,
        "seed": config.seed,
        "report_to": "none",
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not (torch.cuda.is_available() or torch.backends.mps.is_available()),
    }
    try:
        return TrainingArguments(**{**told, **config.trainer})
    except (TypeError, ValueError, ImportError) as error:
        raise BabelScopeError(
            f"the training arguments do not fit together: {error}", "check `trainer` and `optimization`"
        ) from error


def last_checkpoint(folder: Path, *, tidy: bool = False) -> Path | None:
    """The newest checkpoint that is whole; a process that is killed while it writes one leaves a part.

    Parameters
    ----------
    tidy : bool
        Remove such parts.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    for checkpoint in found:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))  # what Trainer writes last
        except (OSError, ValueError):
            if tidy:
                shutil.rmtree(checkpoint)
        else:
            return checkpoint
    return None


class AtSteps(TrainerCallback):
    """Calls `work(step, model)` before the first step, after every so many, and after the last one.

    The model is the one inside of wrappers, in evaluation mode, and `work` may draw random numbers: neither dropout nor
    the order of the data comes out differently for it.
    """

    def __init__(self, every: int, work: Callable[[int, nn.Module], None]) -> None:
        self._every, self._work = every, work
        self.seconds = 0.0

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Step 0; a run that is resumed has it already."""
        if state.global_step == 0:
            self._at(state, model)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        """Every so many steps, and the last one."""
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._at(state, model)

    def _at(self, state: TrainerState, model: nn.Module) -> None:
        if not state.is_world_process_zero:
            return
        begun, inner = time.monotonic(), getattr(model, "module", model)
        with torch.random.fork_rng():
            try:
                self._work(state.global_step, inner.eval())
            finally:
                inner.train()
        self.seconds += time.monotonic() - begun


class _Trainer(Trainer):
    change: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        if self.change is not None:
            inputs, num_items_in_batch = self.change(inputs), None  # counted before, of other labels
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not bool(torch.isfinite(loss)):  # before any weight has moved by it
            step = self.state.global_step
            kept = last_checkpoint(Path(str(self.args.output_dir)))
            where = "no checkpoint was written before it" if kept is None else f"{kept} is kept"
            raise NotFiniteError(
                f"the loss of step {step + 1} is {float(loss)}; {where}",
                "lower optimization.learning_rate, or raise warmup_steps; float16 overflows where bfloat16 does not",
            )
        return loss


def _printer() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


class _Report(TrainerCallback):
    """Progress after each step; and the end, with a checkpoint, where it was asked for."""

    def __init__(self, progress: Progress | None, stopped: Callable[[], int]) -> None:
        self._progress, self._stopped = progress, stopped
        self._loss = ""
        self.signal = 0

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        if logs and "loss" in logs:
            self._loss = f" loss {float(logs['loss']):.3g}"

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        if self._progress is not None:
            self._progress(state.global_step, state.max_steps, f"train{self._loss}")
        if self._stopped() and state.global_step < state.max_steps:
            self.signal = self._stopped()
            control.should_save = control.should_training_stop = True
        return control
