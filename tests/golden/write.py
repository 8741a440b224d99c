"""Write the golden stores of the schema at hand: `python -m tests.golden.write FOLDER`.

The folder of a schema that was released is never written again: what it holds is what that release wrote.
"""

import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.manifest import SCHEMA
from babelscope.activations_store.packing import pack
from babelscope.schema import Answers, Block, CapturePlan, ModelRef, Position, Prompt, PromptSet, Rows, Segment, Site
from babelscope.schema.site import SITE_KINDS, split_site
from tests.golden.plain import digest, read_store

EXTENT = {"dim": 5, "neuron": 7, "head": 2, "expert_slot": 2}
TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
LAST = Position("last")

# Name -> what differs from a float32 store of residual streams at the last token, of one block in one language.
STORES = {
    "float32": {"languages": ("en", "sw"), "block_items": 2},
    "float16": {"dtype": "float16", "model_dtype": "float16"},
    "float16-clipped": {"dtype": "float16", "on_overflow": "clip"},
    "bfloat16": {"dtype": "bfloat16", "model_dtype": "bfloat16"},
    "int8": {"dtype": "int8", "model_dtype": "bfloat16"},
    "ragged": {"positions": (Position("all"), Position("words")), "sites": (Site("attn.heads", 1),)},
    "attention": {
        "sites": (Site("attn.mass", 0), Site("attn.scores", 0)), "n_keys": 4, "segments": ("cue", "fråga"),
        "positions": (LAST, Position("segment", "fråga")),
    },
    "answers": {"answers": "texts", "continuation": 3, "sites": (Site("embed"),)},
    "encoder-decoder": {
        "sites": (Site("resid.post", 0, "enc"), Site("resid.post", 1, "dec"), Site("cross.k", 0, "dec")),
        "n_encoder_layers": 2, "decoder": "language", "dtype": "bfloat16", "model_dtype": "bfloat16",
    },
    "partial": {"block_items": 2, "leave_out": {("en", 1)}},
}  # fmt: skip


PACKED = ("float32", "int8")


def prompts_of(n, languages):
    def prompt(i, language):
        text = f"{i} frågor på {language}?"
        return Prompt(f"item/{i}", language, text, (Segment("fråga", 2, 8, language), Segment("cue", 0, 1, language)),
                      ("A", "B"), ("ja", "nej"), i % 2, ("ja", "nej")[i % 2],
                      {"rule": ("addition", "order")[i % 2], "level": i})  # fmt: skip

    return PromptSet("golden", tuple(prompt(i, g) for g in languages for i in range(n)), {"made": "by hand"})


def plan_of(prompts, *, dtype="float32", model_dtype="float32", n_encoder_layers=0, **changes):
    model = ModelRef("golden", "Golden", 3, model_dtype, "a" * 64, "b" * 64, n_encoder_layers=n_encoder_layers)
    fields = {
        "sites": (Site("resid.post", 0), Site("resid.post", 2)), "positions": (LAST,), "answers": "",
        "backend": "torch", "block_items": 4, "token_budget": 64,
    }  # fmt: skip
    fields |= changes
    return CapturePlan(
        model=model, prompts_sha256=prompts.digest(), languages=prompts.languages, items=prompts.items, dtype=dtype,
        **fields,
    )  # fmt: skip


def number(*place):
    """A float64 that any machine computes alike: between -16 and 16, in steps of 1/64 and of 3/4 in the last axis."""
    state = 0
    for part in place:
        state = (state * 1103 + int(part) * 7919 + 12345) % 2039
    return (state - 1019) / 64


def rows_of(plan, language, site, position, items):
    _, kind, _ = split_site(site)
    axes = SITE_KINDS[kind].axes
    unit = tuple({**EXTENT, "key": plan.n_keys, "summary": len(plan.summaries)}[axis] for axis in axes)
    counts = [item % 3 + 1 if position.ragged else 1 for item in items]
    splits = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    layers = plan.site_layers()[site]
    seed = [plan.languages.index(language), sum(site.encode()), sum(str(position).encode())]
    values = np.empty((len(layers), splits[-1], *unit), np.float32)
    for index in np.ndindex(values.shape):
        item = int(np.searchsorted(splits, index[1], side="right")) - 1
        values[index] = number(*seed, -1 if layers[index[0]] is None else layers[index[0]], items[item],
                               index[1] - splits[item], *index[2:])  # fmt: skip
    if "key" in axes and len(items):
        values[..., -1] = np.nan  # a key that the token cannot see
    if kind == "resid.post" and plan.dtype != "float32" and 3 in items:
        # A massive activation, and what a model with a fault gives.
        values[-1, list(items).index(3), 1] = 696_320 if plan.model.dtype != "float16" else 60_000
        values[0, list(items).index(3), 0] = np.inf if plan.model.dtype == "bfloat16" else 0
    dtypes = {c: np.uint8 if c == "special" else np.int32 for c in position.coordinates}
    beside = {c: (np.arange(splits[-1]) % 2).astype(kind) for c, kind in dtypes.items()}
    cast = values.astype(TYPES[plan.model.dtype]).astype(TYPES[plan.row_dtype])
    return Rows(cast, splits if position.ragged else None, beside)


def block_of(plan, language, index):
    failed = {1} & set(plan.block(index)) if language == "sw" else set()
    items = [i for i in plan.block(index) if i not in failed]
    rows = {(site, p): rows_of(plan, language, site, p, items) for site in plan.site_layers() for p in plan.positions}
    n = len(items)
    answers = None
    if plan.answered:
        scores = np.array([[number(i, 1), number(i, 2)] for i in items]).reshape(n, 2)
        choice = scores.argmax(axis=1)
        correct = (choice == np.array(items) % 2).astype(float)
        answers = Answers(scores, choice, correct, text_scores=scores - 1, text_tokens=np.full((n, 2), 2, np.int64),
                          continuation=tuple(f"ja, {i} är så" for i in items))  # fmt: skip
    reasons = dict.fromkeys(failed, "no token of the segment")
    return Block(language, index, np.array(items, np.int64), rows, np.array(items, np.int64) % 3 + 1, ("▁så",) * n,
                 answers, reasons)  # fmt: skip


def write(folder):
    """Write every store and the digests of their numbers; give the folder of the schema."""
    here = Path(folder) / SCHEMA.rpartition("/")[2]
    here.mkdir()
    pins = {}
    for name, changes in STORES.items():
        changes = dict(changes)
        leave_out = changes.pop("leave_out", ())
        prompts = prompts_of(4, changes.pop("languages", ("en",)))
        plan = plan_of(prompts, **changes)
        about = {"device": "cpu", "versions": {"golden": "1"}}
        writer = StoreWriter.create(here / f"{name}.acts", plan, prompts, about)
        for language, index in writer.pending():
            if (language, index) not in leave_out:
                writer.put(block_of(plan, language, index))
        (here / f"{name}.acts/runs").rmdir()
        _, found = read_store(writer.path)
        pins[name] = {f"{language} {group}": digest(values) for (language, group), values in sorted(found.items())}
    for name in PACKED:
        pack(ActivationStore.open(here / f"{name}.acts"), here / f"{name}.h5")
    (here / "values.json").write_text(json.dumps(pins, indent=1) + "\n", "utf-8")
    return here


if __name__ == "__main__":
    print(write(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent))
