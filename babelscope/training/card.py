"""The run card: everything that decided a trained model, for machines (run_card.json) and people (README.md)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from babelscope.training.config import TrainConfig


def write_card(folder: Path, config: TrainConfig, facts: Mapping[str, Any], log: Sequence[Mapping[str, float]]) -> None:
    """Write `run_card.json`, `config.yaml` and `README.md` into the folder of a trained model.

    Parameters
    ----------
    facts : mapping
        Hashes of data and base, numbers of examples, tokens and parameters, versions, seconds.
    log : sequence
        Entries of Trainer: step, loss, learning rate, norm of the gradient.
    """
    record = {"config": config.model_dump(), **facts, "log": list(log)}
    text = json.dumps(record, indent=1, ensure_ascii=False, default=str)
    (folder / "run_card.json").write_text(text + "\n", "utf-8")
    written = yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(written, "utf-8")
    (folder / "README.md").write_text(_card(config, facts, log), "utf-8")


def _card(config: TrainConfig, facts: Mapping[str, Any], log: Sequence[Mapping[str, float]]) -> str:
    losses = [(int(e["step"]), float(e["loss"])) for e in log if "loss" in e]
    trained, whole = facts["trainable_parameters"], facts["parameters"]
    lines = [
        "---", f"base_model: {json.dumps(config.model)}", "tags: [babelscope]", "---", "",
        f"# {config.model}, trained with BabelScope ({config.method})", "",
        *([config.about, ""] if config.about else []),
        f"- data: {facts['examples']:,} examples, {facts['tokens']:,} tokens, languages "
        f"{', '.join(facts['languages']) or 'as in the text'}; sha256 `{facts['data_sha256'][:16]}`",
        f"- base: weights sha256 `{facts['base_sha256'][:16]}`",
        f"- {trained:,} of {whole:,} parameters trained, {facts['steps']:,} steps, seed {config.seed}, "
        f"{facts['seconds']:.0f} s",
    ]  # fmt: skip
    if losses:
        lines.append(f"- loss {losses[0][1]:.4g} at step {losses[0][0]}, {losses[-1][1]:.4g} at step {losses[-1][0]}")
    lines += [*(f"- {note}" for note in facts["notes"]), "", "`config.yaml` repeats the run:", ""]
    lines += [f"```bash\nbabelscope train {config.method} OUT --config config.yaml\n```", ""]
    lines += ["`run_card.json` has the whole log, versions and hashes.", ""]
    return "\n".join(lines)
