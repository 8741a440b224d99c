"""Which language models of the installed transformers the locator finds its way in, each built tiny and random.

Every class that the library offers for causal, masked and sequence-to-sequence language modeling is built from its
own configuration with small numbers in it, its parts are located, and every law is checked on three prompts.

located: attention, output projection, down projection or experts, and equations, in every layer of every stack.
partial: something of that is missing in some layer; the sites that need it are refused, the others are proven.
refused: nothing is captured. A law that fails counts as refused. `not built` lies with this script, not the locator.
"""

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.findings import OPTIONAL, parts_of
from babelscope.hooks.laws import check_laws
from babelscope.hooks.locate import locate
from babelscope.hooks.tap import all_taps
from babelscope.hooks.tokens import Batch

KINDS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
MOST_PARAMETERS = 20_000_000
SECONDS = 30.0  # for one model; one that hangs is not built
VOCABULARY = 160

# Names of numbers in configurations, whoever's they are, and a small value. Each attempt changes some of them:
# families disagree on what has to divide what.
SMALL = {
    64: "hidden_size d_model n_embd emb_dim embed_dim dim embedding_size word_embed_proj_dim decoder_hidden_size "
        "pooler_hidden_size hidden_size_per_layer_input dim_model",
    96: "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff n_inner moe_intermediate_size d_inner "
        "shared_expert_intermediate_size ffn_hidden_size shared_intermediate_size feed_forward_size dim_ff dff "
        "expert_ffn_hidden_size shared_experts_intermediate_size intermediate_size_mlp block_ff_dim",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads num_experts "
       "num_encoder_attention_heads num_decoder_attention_heads n_routed_experts num_local_experts moe_num_experts "
       "attention_heads swa_num_attention_heads cross_attention_heads num_attention_heads_per_layer",
    2: "encoder_sparse_step decoder_sparse_step "
    "num_key_value_heads num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
       "num_decoder_layers num_encoder_layers num_experts_per_tok num_kv_heads moe_topk moe_k top_k "
       "num_experts_per_token swa_num_key_value_heads",
    16: "head_dim d_kv d_head qk_nope_head_dim qk_rope_head_dim v_head_dim attention_head_size kv_channels dim_head "
        "swa_head_dim kv_lora_rank q_lora_rank o_lora_rank num_buckets",
    32: "qk_head_dim",
    128: "max_position_embeddings n_positions n_ctx max_seq_len max_source_positions max_target_positions",
    0: "num_kv_shared_layers",
    1: "num_sparse_encoder_layers num_sparse_decoder_layers "
    "n_group topk_group num_expert_group moe_num_shared_experts n_shared_experts num_shared_experts",
}  # fmt: skip
VALUES = {name: value for value, names in SMALL.items() for name in names.split()}
LAYERS = tuple(name for name in VALUES if name.endswith(("layers", "n_layer")))
ATTEMPTS: tuple[dict[str, int], ...] = (
    {},
    {"num_key_value_heads": 4, "num_kv_heads": 4},
    {"absent": 1},  # also numbers that are None by default
    {"absent": 1, "num_key_value_heads": 4, "num_kv_heads": 4, "num_experts_per_tok": 1},
    dict.fromkeys(LAYERS, 4),
    {"hidden_size": 256, "d_model": 256, "n_embd": 256, "head_dim": 64, "embedding_size": 256},
    {"hidden_size": 256, "num_key_value_heads": 4, "head_dim": 64, **dict.fromkeys(LAYERS, 8)},
)


@dataclass(frozen=True)
class Outcome:
    name: str
    kind: str
    status: str
    reason: str = ""
    law_error: float | None = None
    parts: str = ""
    seconds: float = 0.0


def classes() -> Iterator[tuple[str, str, str]]:
    """(class, kind, model type), each class once."""
    seen = set()
    for kind, mapping in KINDS.items():
        for model_type, names in mapping.items():
            for name in [names] if isinstance(names, str) else names:
                if name not in seen:
                    seen.add(name)
                    yield name, kind, model_type


def small(defaults: Mapping[str, Any], changed: Mapping[str, int]) -> dict[str, Any]:
    """Arguments that shrink a configuration with these defaults; configurations inside it as well."""
    found: dict[str, Any] = {}
    tokens = iter(range(VOCABULARY - 1, 0, -1))
    for name, value in defaults.items():
        if isinstance(value, Mapping) and "model_type" in value:
            found[name] = {"model_type": value["model_type"], **small(value, changed)}
        elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            found[name] = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}.get(name) or next(tokens)
        elif name in ("vocab_size", "vocab_size_per_layer_input", "entity_vocab_size"):
            found[name] = VOCABULARY
        elif name in VALUES and (type(value) is int or (value is None and changed.get("absent"))):
            found[name] = changed.get(name, VALUES[name])
    depth = next((found[name] for name in LAYERS if name in found), None)
    was = next((defaults[name] for name in LAYERS if name in found), None)
    for name, value in defaults.items():  # one entry a layer
        if isinstance(value, list) and depth is not None and len(value) == was and name not in ("architectures",):
            found[name] = value[:depth]
    return found


def tiny(name: str, model_type: str) -> PreTrainedModel:
    """A random model of a class, norms and biases perturbed so that no wrong part looks like the right one."""
    model_class = getattr(transformers, name)
    config_class = model_class.config_class or CONFIG_MAPPING[model_type]
    more = {"is_decoder": True} if model_type == "reformer" and "Masked" not in name else {}
    failures = []
    for changed in ATTEMPTS:
        try:
            config = config_class(**small(config_class().to_dict(), changed), **more)
            return _built(model_class, config)
        except Exception as error:
            failures.append(error)
    raise failures[0]


def _built(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        parameters = sum(p.numel() for p in model_class(config).parameters())
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"{parameters:,} parameters")
    torch.manual_seed(0)
    model = model_class(config).eval()
    if languages := getattr(config, "languages", None):  # X-MOD reads one of its languages at a time
        model.set_default_language(languages[0])
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape) * (0.15 if parameter.ndim > 1 else 0.3)
            _ = parameter.copy_(noise) if parameter.ndim > 1 else parameter.add_(noise)
    ids = torch.arange(4, 13)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    with torch.inference_mode():
        model.base_model(**inputs)
    return model


def batch(model: PreTrainedModel) -> Batch:
    """Three prompts of different lengths, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    lengths, longest = (12, 9, 5), 12
    mask = torch.tensor([[1] * n + [0] * (longest - n) for n in lengths])
    pad = getattr(model.config.get_text_config(), "pad_token_id", None) or 0
    ids = torch.randint(3, VOCABULARY // 2, mask.shape, generator=generator).where(mask.bool(), pad)
    if not model.config.is_encoder_decoder:
        return Batch(ids, mask)
    return Batch(ids, mask, ids.flip(0), mask.flip(0))


def examine(name: str, kind: str, model_type: str) -> Outcome:
    began = time.perf_counter()
    try:
        model = tiny(name, model_type)
    except Exception as error:
        return Outcome(name, kind, "not built", _line(error))
    try:
        anatomy = locate(model)
        errors = check_laws(anatomy, batch(model))
    except BabelScopeError as error:
        return Outcome(name, kind, "refused", str(error).splitlines()[0], seconds=time.perf_counter() - began)
    except Exception as error:
        return Outcome(name, kind, "refused", _line(error), seconds=time.perf_counter() - began)
    if unchecked := placed(anatomy) - set(errors):
        return Outcome(name, kind, "refused", f"no law was checked for {', '.join(sorted(unchecked))}")
    reason = missing(anatomy)
    return Outcome(
        name, kind, "partial" if reason else "located", reason, max(errors.values()), shown(anatomy),
        time.perf_counter() - began,
    )  # fmt: skip


def missing(anatomy: Anatomy) -> str:
    """Parts that are missing somewhere, beside those that not every model has."""
    found = []
    for tag, stack in anatomy.stacks.items():
        for part, layers in stack.missing.items():
            if part not in OPTIONAL:
                where = "all layers" if len(layers) == len(stack.layers) else f"layers {', '.join(map(str, layers))}"
                found.append(f"{tag + ': ' if tag else ''}{part} ({where})")
    return "; ".join(found)


def placed(anatomy: Anatomy) -> set[str]:
    """Names of the sites that could be captured in some layer."""
    found = set()
    for tag, stack in anatomy.stacks.items():
        for tap in all_taps():
            for layer in range(len(stack.layers)):
                with contextlib.suppress(BabelScopeError):
                    tap.place(stack, layer)
                    found.add(f"{tag}.{tap.kind}" if tag else tap.kind)
    return found


def shown(anatomy: Anatomy) -> str:
    """Paths of the parts of the last block of each stack, for a reader who knows the model."""
    wanted = ("output projection", "its output projection", "MLP output", "experts")
    paths = [p.path for p in parts_of(anatomy) if p.name in wanted and p.path]
    return ", ".join(f"`{path}`" for path in dict.fromkeys(paths))


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1].strip()[:160] if text else ''}"


def _work(pipe: Connection) -> None:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    while (job := pipe.recv()) is not None:
        pipe.send(examine(*job))


class Worker:
    """A process that examines one class at a time, and is replaced when a model hangs or kills it."""

    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()

    def examine(self, job: tuple[str, str, str]) -> Outcome | None:
        self._pipe.send(job)
        try:
            return self._pipe.recv() if self._pipe.poll(SECONDS) else None
        except EOFError:
            return None

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def sweep(only: str) -> Iterator[Outcome]:
    worker = Worker()
    for job in classes():
        if only.lower() not in job[0].lower():
            continue
        outcome = worker.examine(job)
        if outcome is None:
            worker.end()
            worker = Worker()
            outcome = Outcome(job[0], job[1], "not built", f"no answer in {SECONDS:.0f} s")
        yield outcome
    worker.end()


def page(outcomes: list[Outcome]) -> str:
    """The table as a page of the documentation."""
    counts = Counter(o.status for o in outcomes)
    lines = [
        "# Language models of transformers in which the locator finds its way",
        "",
        f"Written by `python benchmarks/anatomy.py` with transformers {version('transformers')}; do not edit.",
        "",
        *(line for line in (__doc__ or "").strip().splitlines()[1:]),
        "",
        "| located | partial | refused | not built |",
        "|---|---|---|---|",
        f"| {counts['located']} | {counts['partial']} | {counts['refused']} | {counts['not built']} |",
        "",
        "Largest law error of the located and partial models: "
        f"{max((o.law_error or 0.0 for o in outcomes), default=0.0):.1e} (float32; at most 2e-5 is accepted).",
    ]
    for status in ("partial", "refused", "not built"):
        chosen = [o for o in outcomes if o.status == status]
        lines += ["", f"## {status.capitalize()} ({len(chosen)})", "", "| model | kind | reason |", "|---|---|---|"]
        lines += [f"| {o.name} | {o.kind} | {o.reason.replace('|', '/')} |" for o in chosen]
    lines += ["", f"## Located ({counts['located']})", ""]
    lines += ["| model | kind | output projection, what the MLP adds, experts | law error |", "|---|---|---|---|"]
    for o in outcomes:
        if o.status == "located":
            lines.append(f"| {o.name} | {o.kind} | {o.parts} | {o.law_error:.0e} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of a class name")
    parser.add_argument("--out", type=Path, help="write the table as Markdown, as docs/anatomy-sweep.md")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    outcomes = []
    for outcome in sweep(options.only):
        outcomes.append(outcome)
        if not options.json:
            print(f"{outcome.status:<10}{outcome.name:<44}{outcome.seconds:5.1f} s  {outcome.reason}", flush=True)
    counts = Counter(o.status for o in outcomes)
    if options.json:
        print(json.dumps({"counts": counts, "models": [asdict(o) for o in outcomes]}))
    else:
        print(", ".join(f"{n} {status}" for status, n in counts.most_common()))
    if options.out:
        options.out.write_text(page(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main()
