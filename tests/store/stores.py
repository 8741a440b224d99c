"""Plans and blocks made by hand, every value a function of where it stands."""

from dataclasses import replace

import ml_dtypes
import numpy as np

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.schema import Answers, Block, CapturePlan, ModelRef, Position, Prompt, PromptSet, Rows, Site

LAST, ALL, WORDS = Position("last"), Position("all"), Position("words")
WIDTH = {
    "resid.post": (6,), "attn.heads": (2, 3), "embed": (6,), "attn.mass": (2, 5), "attn.pattern": (2, 4),
}  # fmt: skip
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def make_prompts(n=5, languages=("en", "sw")):
    return PromptSet("made", tuple(
        Prompt(f"item/{i}", g, f"text {i} <b>{g}</b>", options=("x", "y"), letters=("A", "B"), gold=i % 2,
               covariates={"task": "t", "half": i % 2})
        for g in languages for i in range(n)
    ))  # fmt: skip


def make_plan(prompts, dtype="float32", positions=(LAST,), block_items=2, **changes):
    sites = (Site("resid.post", 0), Site("resid.post", 2), Site("attn.heads", 1), Site("embed"))
    model = ModelRef("tiny", "LlamaForCausalLM", 3, dtype, "w" * 64, "t" * 64)
    values = {
        "model": model, "prompts_sha256": prompts.digest(), "languages": prompts.languages, "items": prompts.items,
        "sites": sites, "positions": positions, "answers": "labels", "backend": "torch", "block_items": block_items,
        "token_budget": 64, "dtype": dtype,
    }  # fmt: skip
    return CapturePlan(**(values | changes))


def make_block(plan, language, index, failed=()):
    items = [i for i in plan.block(index) if i not in failed]
    tokens = np.array([i % 3 + 1 for i in items], np.int64)
    rows = {}
    for site, layers in plan.site_layers().items():
        for position in plan.positions:
            counts = tokens if position.ragged else np.ones(len(items), np.int64)
            values = np.stack([
                np.concatenate([value(plan, language, site, layer, item, n, position.ragged)
                                for item, n in zip(items, counts, strict=True)] or [np.zeros((0, *WIDTH[site]))])
                for layer in layers
            ])  # fmt: skip
            splits = np.concatenate([[0], np.cumsum(tokens)]) if position.ragged else None
            n = len(values[0])
            beside = {c: np.arange(n, dtype=np.uint8 if c == "special" else np.int32) % 2 for c in position.coordinates}
            rows[site, position] = Rows(values.astype(DTYPES[plan.dtype]), splits, beside)
    correct = np.array([i % 2 == 0 for i in items], float)
    answers = Answers(np.tile([-0.5, -1.0], (len(items), 1)), np.zeros(len(items), np.int64), correct)
    if plan.answers == "texts":
        texts = np.array([[-5.0, -6.0 - i / 10] for i in items]).reshape(-1, 2)
        answers = replace(answers, text_scores=texts, text_tokens=np.tile([1, 2], (len(items), 1)))
    if plan.continuation:
        answers = replace(answers, continuation=tuple(f"são {i}" for i in items))
    if plan.spellings:
        bare = np.array([[-4.0 - i, -5.0] for i in items], np.float32).reshape(-1, 2)
        scores = np.stack([bare, bare[:, ::-1], np.full_like(bare, np.nan)], axis=2)
        spelled = np.tile(np.array([[7, 17, 9], [8, 18, 9]], np.int32), (len(items), 1, 1))
        answers = replace(answers, label_scores=scores, label_tokens=spelled)
    reasons = {i: f"too long in {language}" for i in plan.block(index) if i in failed}
    return Block(
        language,
        index,
        np.array(items, np.int64),
        rows,
        tokens,
        tuple("ü" for _ in items),
        answers if plan.answered else None,
        reasons,
    )


def fill(path, plan, prompts, failed=None, **options):
    with StoreWriter.create(path, plan, prompts, {"why": "test"}, **options) as writer:
        for language, index in writer.pending():
            writer.put(make_block(plan, language, index, (failed or {}).get(language, ())))
    return ActivationStore.open(path)


def shards_of(path):
    """Relative name -> bytes of every HDF5 file of a store."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*.h5"))}


def value(plan, language, site, layer, item, n, ragged):
    """(row, *unit), different for every coordinate."""
    seed = [plan.languages.index(language), sorted(WIDTH).index(site), 9 if layer is None else layer, item, int(ragged)]
    return np.random.default_rng(seed).standard_normal((n, *WIDTH[site])) * 10
