"""The ways to get activations that `capture.py` measures: each runs all prompts of a setting once."""

import copy
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import babelscope as bs
from babelscope import hooks
from babelscope.activations_store import StoreWriter
from babelscope.hooks.tokens import Encoded, batches, pad
from babelscope.schema import LEVERS, PromptSet
from babelscope.schema.plan import PASS_COST
from babelscope.workflows.estimates import estimated

SITES = ("resid.post", "mlp.act")
LOOP = "one prompt at a time"


@dataclass(frozen=True)
class Setting:
    """What every arm works on."""

    loaded: hooks.LoadedModel
    prompts: PromptSet
    budget: int
    encoded: list[Encoded]

    def batches(self) -> list[list[int]]:
        return batches([len(e) for e in self.encoded], self.budget, PASS_COST)

    def ids(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = pad(self.loaded, [self.encoded[i] for i in rows])
        return ids, mask.sum(1) - 1


def bare(s: Setting) -> None:
    """Batched, length-sorted forward passes with logits; nothing is kept."""
    with torch.inference_mode():
        for rows in s.batches():
            s.loaded.model(input_ids=s.ids(rows)[0], use_cache=False)


def capture(s: Setting, levers: tuple[str, ...] = tuple(LEVERS), where: str | None = None) -> None:
    """All layers into a store on disk, hashed and fsynced."""
    plan = hooks.make_plan(
        s.loaded, s.prompts, sites=SITES, positions=["last"], answers="none", token_budget=s.budget, levers=levers
    )
    plan = estimated(Path("here"), plan, s.loaded, s.prompts, resized=True).plan  # batches as they suit the device
    with (
        tempfile.TemporaryDirectory(dir=where) as folder,
        StoreWriter.create(Path(folder) / "run.acts", plan, s.prompts, {}) as writer,
    ):
        for block in hooks.run_plan(plan, s.loaded, s.prompts, writer.pending()):
            writer.put(block)


def without_levers(s: Setting) -> None:
    """The same without levers: hooks on the body of the model."""
    capture(s, ())


def into_memory(s: Setting) -> None:
    """The same with the store on a file system in memory: what is left is not the disk's."""
    capture(s, where="/dev/shm")


def verb(s: Setting) -> None:
    """`bs.capture` of a loaded model with all that it does: blocks are written and hashed on a thread of their own."""
    with tempfile.TemporaryDirectory() as folder:
        bs.capture(
            Path(folder) / "run.acts", model=s.loaded, prompts=s.prompts, sites=SITES, positions=["last"],
            answers="none", self_test=False,
        )  # fmt: skip


def loop(s: Setting) -> None:
    """The scripts of the papers: one prompt at a time, a hook on every block and activation, the defaults otherwise."""
    kept = []

    def last(_: object, __: object, output: object) -> None:
        kept.append((output[0] if isinstance(output, tuple) else output)[0][-1].detach())

    layers = s.loaded.anatomy.stacks[""].layers
    handles = [m.register_forward_hook(last) for layer in layers for m in (layer.activation, layer.module)]
    try:
        for row in range(len(s.encoded)):
            with torch.no_grad():
                ids, _ = s.ids([row])
                s.loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()


def hidden_states(s: Setting) -> None:
    """`output_hidden_states`, last tokens kept; it has no activations of the MLP."""
    kept = []
    with torch.inference_mode():
        for rows in s.batches():
            ids, last = s.ids(rows)
            output = s.loaded.model(input_ids=ids, use_cache=False, output_hidden_states=True)
            kept.append(torch.stack([h[torch.arange(len(rows)), last] for h in output.hidden_states[1:]]))


BRIDGE: dict[int, object] = {}


def lens(s: Setting) -> None:
    """`run_with_cache`, filtered to the two sites, last tokens kept."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    if id(s.loaded) not in BRIDGE:  # a copy, since it rebuilds the model in place; a tokenizer would be loaded again
        model = copy.deepcopy(s.loaded.model)
        BRIDGE[id(s.loaded)] = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
    bridge, kept = BRIDGE[id(s.loaded)], []

    def wanted(name: str) -> bool:
        return (name.endswith("hook_out") and name.count(".") == 2) or name.endswith("mlp.hook_pre")

    with torch.inference_mode():
        for rows in s.batches():
            ids, last = s.ids(rows)
            _, cache = bridge.run_with_cache(ids, names_filter=wanted)
            kept.append([x[torch.arange(len(rows)), last] for x in cache.values()])


def nnsight(s: Setting) -> None:
    """A trace that takes the last tokens inside the model."""
    import nnsight as ns

    traced = ns.NNsight(s.loaded.model)
    kept = []
    with torch.inference_mode():
        for rows in s.batches():
            ids, last = s.ids(rows)
            row = torch.arange(len(rows))
            with traced.trace(input_ids=ids, use_cache=False):
                found = ns.save(list())  # noqa: C408 - as its documentation writes it
                for layer in traced.model.layers:
                    found.append(layer.mlp.act_fn.output[row, last])
                    found.append(layer.output[row, last])
            kept.append(found)


ARMS: dict[str, Callable[[Setting], None]] = {
    "bare forward pass": bare,
    "capture": capture,
    "capture, no levers": without_levers,
    "capture into memory": into_memory,
    "capture, whole verb": verb,
    LOOP: loop,
    "transformer_lens": lens,
    "nnsight": nnsight,
    "output_hidden_states": hidden_states,
}
