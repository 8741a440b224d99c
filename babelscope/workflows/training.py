"""The verb `train`: a configuration becomes a model folder that everything else loads."""

import json
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelscope.errors import BabelScopeError
from babelscope.training.config import TrainConfig, config_of, read_config
from babelscope.training.yaml_files import presets
from babelscope.workflows.model_folders import model_path
from babelscope.workflows.outputs import check_output, new_folder
from babelscope.workflows.parts import is_silent
from babelscope.workflows.signals import Note, Progress, stop_requested
from babelscope.workflows.steps import check_steps, clear_steps, step_captures, steps_beside
from babelscope.workflows.training_data import TrainingData, training_data

__all__ = ["TrainingPlan", "presets", "read_config", "train"]

if TYPE_CHECKING:
    from babelscope.training.examples import Examples

# What a folder of a trained model may hold, for --overwrite.
PARTS = frozenset({
    "config.json", "model.safetensors", "model.safetensors.index.json", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "adapter_config.json",
    "adapter_model.safetensors", "README.md", "run_card.json", "config.yaml", "vocab.txt", "vocab.json", "merges.txt",
    "tokenizer.model", "sentencepiece.bpe.model", "added_tokens.json", "qcross.json", "qcross.safetensors",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a run will do, as printed by `--dry-run`."""

    examples: int
    tokens: int
    steps: int
    trainable: int
    parameters: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"examples    {self.examples:,}, {self.tokens:,} tokens an epoch",
            f"steps       {self.steps:,}",
            f"trainable   {self.trainable:,} of {self.parameters:,} parameters",
            *(f"note        {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def train(
    config: TrainConfig | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    limit: int | None = None,
    dry_run: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> Path | TrainingPlan:
    """Train a model and write it, with its tokenizer and run card, to the folder `out`, which appears whole.

    Checkpoints go to `OUT.checkpoints` beside it, and are removed when it is done. What is captured meanwhile goes to
    `OUT.steps`, one store for each step (see `open_steps`).

    Parameters
    ----------
    config : TrainConfig, mapping, path of a YAML file, or name of a preset
    limit : int, optional
        First items of each source, to try it out.
    dry_run : bool
        Only say what would be done.
    resume : bool
        Go on from the newest checkpoint of the same configuration.

    Raises
    ------
    BabelScopeError
        For anything that the user can fix, before the first step; where the loss leaves the numbers; and where the
        user stopped it.
    """
    from babelscope.qcross.injection import config_of
    from babelscope.qcross.saving import body_state
    from babelscope.training import fitting, methods
    from babelscope.training.config import Qcross

    config = _config(config, limit)
    target, checkpoints = Path(out).expanduser(), _beside(Path(out).expanduser())
    if not dry_run and not is_silent():  # one process of a torchrun looks and writes for all
        check_output(target, overwrite=overwrite, parts=PARTS)
        _check_checkpoints(checkpoints, config, resume=resume)
        if config.capture is not None and not resume:
            check_steps(steps_beside(target), overwrite=overwrite)
    source = model_path(config.model)
    data = training_data(config, note)
    model, tokenizer, examples = _prepared(config, source, data)
    _check_context(model, examples)
    base = _weights_sha256(model.state_dict())
    qcross = config.qcross or (Qcross() if config.method == "qcross" and config_of(model) is None else None)
    body = _weights_sha256(body_state(model))
    methods.with_qcross(model, qcross, body)
    if config_of(model) is not None and not all(row.languages for row in examples.rows):
        raise BabelScopeError(
            "nothing says which language each token is in, which cross-lingual queries need",
            "train on prompts whose segments name their languages, with a fast tokenizer (tokenizer.json)",
        )
    model = methods.prepared(model, config)
    trained, whole = methods.trainable(model)
    steps = fitting.steps_of(config, len(examples))
    for text in examples.notes:
        note(text)
    if dry_run:
        return TrainingPlan(len(examples), examples.tokens, steps, trained, whole, examples.notes)
    callbacks: list[fitting.AtSteps] = []
    if config.capture is not None:
        frozen = base if trained < whole else ""
        take = step_captures(config.capture, steps_beside(target), model, tokenizer, frozen, note)
        callbacks.append(fitting.AtSteps(config.capture.every, take))
        if not resume and not is_silent():
            clear_steps(steps_beside(target))
    checkpoints.mkdir(exist_ok=True)
    if not is_silent():
        (checkpoints / "config.json").write_text(config.model_dump_json(), "utf-8")
    started = time.monotonic()
    with stop_requested() as stopped:
        log = fitting.fit(
            model, examples, _collate(model, tokenizer), config, checkpoints, progress=progress,
            stopped=stopped, callbacks=callbacks, change=_change(tokenizer, config),
        )  # fmt: skip
    facts = {
        "examples": len(examples), "tokens": examples.tokens, "steps": int(log[-1]["step"]), "data_sha256": data.sha256,
        "languages": data.languages, "base_sha256": base, "body_sha256": body, "source": source,
        "trainable_parameters": trained, "parameters": whole,
        "seconds": time.monotonic() - started, "notes": list(examples.notes), "versions": _versions(),
        "platform": platform.platform(), "capture_seconds": sum(c.seconds for c in callbacks),
    }  # fmt: skip
    if not is_silent():
        _write(model, tokenizer, config, target, facts, log, overwrite=overwrite)
        shutil.rmtree(checkpoints)
    return target


def _config(config: TrainConfig | Mapping[str, Any] | str | Path, limit: int | None) -> TrainConfig:
    if isinstance(config, str | Path):
        config = read_config(config)
    elif not isinstance(config, TrainConfig):
        config = config_of(config)
    if limit is None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"limit": limit})})


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.checkpoints")


def _check_checkpoints(checkpoints: Path, config: TrainConfig, *, resume: bool) -> None:
    if not checkpoints.exists():
        if resume:
            raise BabelScopeError(f"there is nothing to resume: {checkpoints} does not exist", "leave out --resume")
        return
    if not resume:
        raise BabelScopeError(
            f"{checkpoints} holds an unfinished run", "add --resume to go on with it, or remove the folder"
        )
    try:
        before = json.loads((checkpoints / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        raise BabelScopeError(f"{checkpoints} does not say what was trained", "remove it and start again") from None
    now = json.loads(config.model_dump_json())
    different = sorted(k for k in {**_flat(before), **_flat(now)} if _flat(before).get(k) != _flat(now).get(k))
    if different:
        told = "; ".join(f"{k} was {_flat(before).get(k)!r} and is {_flat(now).get(k)!r}" for k in different)
        raise BabelScopeError(
            f"{checkpoints} is of another run: {told}", "repeat the first command exactly, or name another output"
        )


def _flat(record: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return found


def _prepared(config: TrainConfig, source: str, data: TrainingData) -> tuple[Any, Any, "Examples"]:
    """Model, tokenizer and examples: a decoder that answers or goes on, or a classifier on an encoder."""
    from transformers import set_seed

    from babelscope.training import examples, methods

    set_seed(config.seed)  # before the first new weight, a head's or an adapter's, is drawn
    wanted = config.optimization
    is_decoder = methods.is_decoder(methods.architecture_of(source))
    if data.prompts is None:
        if not is_decoder:
            raise BabelScopeError(f"{config.model} does not write text", "train it on prompts with a gold option")
        model, tokenizer = methods.load(source, None)
        return model, tokenizer, examples.documents(data.texts, tokenizer, wanted.max_length)
    if config.method == "qcross":
        model, tokenizer = methods.load(source, None, masked=not is_decoder)
        return model, tokenizer, examples.pairs(data.prompts, tokenizer, wanted.max_length, wanted.over_length)
    first = data.prompts.prompts[0]
    model, tokenizer = methods.load(source, None if is_decoder else len(first.options or first.letters))
    length = wanted.max_length, wanted.over_length
    if is_decoder:
        found = examples.responses(data.prompts, tokenizer, *length, end_of_text=config.data.end_of_text)
        return model, tokenizer, found
    return model, tokenizer, examples.classes(data.prompts, tokenizer, *length)


def _check_context(model: Any, examples: "Examples") -> None:
    from babelscope.training.methods import context_of

    context = context_of(model)
    longest = max(len(row.ids) for row in examples.rows)
    if context and longest > context:
        raise BabelScopeError(
            f"an example has {longest:,} tokens, and the model reads {context:,}",
            f"set optimization.max_length to {context} and optimization.over_length to truncate or drop",
        )


def _collate(model: Any, tokenizer: Any) -> Any:
    from babelscope.qcross.injection import config_of
    from babelscope.training.collate import Collate

    return Collate(tokenizer.pad_token_id or 0, config_of(model) is not None)


def _change(tokenizer: Any, config: TrainConfig) -> Any:
    from babelscope.training.collate import Masking

    if config.method != "qcross" or tokenizer.mask_token_id is None:
        return None
    return Masking(tokenizer.mask_token_id, len(tokenizer), frozenset(tokenizer.all_special_ids))


def _weights_sha256(state: Any) -> str:
    from babelscope.hooks.fingerprints import weights_sha256

    return weights_sha256(state)


def _write(
    model: Any, tokenizer: Any, config: TrainConfig, target: Path, facts: Mapping[str, Any], log: Sequence[Any], *,
    overwrite: bool,
) -> None:  # fmt: skip
    from babelscope.qcross.injection import config_of
    from babelscope.qcross.saving import QcrossRecord, save_cross
    from babelscope.training.card import write_card

    if config.method == "lora" and config.lora.merge:
        model = model.merge_and_unload()
    with new_folder(target, overwrite=overwrite, parts=PARTS) as building:
        if config.method == "qcross":
            pairs = tuple(g for g in facts["languages"] if "-" in g)
            made = config_of(model)
            assert made is not None
            save_cross(
                model, building,
                QcrossRecord(
                    base=facts["source"], base_sha256=facts["body_sha256"], languages=pairs, config=made
                ),
            )  # fmt: skip
        else:
            model.save_pretrained(building)
        tokenizer.save_pretrained(building)
        write_card(building, config, facts, log)


def _versions() -> dict[str, str]:
    found = {}
    for name in ("babelscope", "torch", "transformers", "peft", "accelerate", "tokenizers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
