"""Planted attention: what `attn.mass` holds of heads whose ways are known, over prompts with three segments."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.schema import Block, CapturePlan, ModelRef, Position, Prompt, PromptSet, Rows, Segment, expand_sites

SEGMENTS = ("context", "cue", "question")


def summaries(
    lengths: NDArray[np.int64], preferences: NDArray[np.float64], sink: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(..., 2 x (3 + segment)) of the last token of a causal model, which sees a start token and then the segments.

    `lengths` are tokens per segment, `preferences` what a token of each segment weighs, (..., segment); `sink` is the
    mass on the start token, (...).
    """
    n = 1 + lengths.sum(-1)
    weights = lengths * preferences
    masses = (1 - sink[..., None]) * weights / weights.sum(-1, keepdims=True)
    starts = 1 + np.cumsum(lengths, -1) - lengths
    middles = starts + (lengths - 1) / 2
    last = n - 1

    def of(first, masses, entropy):
        distance = last - (masses * middles).sum(-1)
        return np.concatenate([np.stack([entropy, first, distance], -1), masses], -1)

    per_token = masses / lengths
    entropy = -(sink * np.log(sink)) - (masses * np.log(per_token)).sum(-1)
    even = of(1 / n, lengths / n[..., None], np.log(n))
    return np.concatenate([of(sink, masses, entropy), even], -1).astype(np.float32)


def planted(
    rng: np.random.Generator, heads: str, n_languages: int, n_items: int, *, noise: float = 0.3
) -> NDArray[np.float32]:
    """(language, item, head, summary), one head for each letter of `heads`.

    `c` follows content: preferences of each item, the same in all languages. `t` follows the template: the same
    preferences for all items, and noise. `e` is even: no preference, so that only lengths count. `n` is noise.
    Lengths belong to the item, and each language needs its own number of tokens for them.
    """
    base = rng.integers(4, 30, size=(1, n_items, 3))
    fertility = rng.uniform(1, 2.5, size=(n_languages, 1, 1))
    lengths = np.maximum(1, np.rint(base * fertility)).astype(np.int64)
    found = []
    for kind in heads:
        own = rng.normal(size=(n_languages, n_items, 3)) * noise
        shared = {
            "c": rng.normal(size=(1, n_items, 3)), "t": rng.normal(size=3), "e": 0.0,
            "n": rng.normal(size=(n_languages, n_items, 3)),
        }[kind]  # fmt: skip
        strength = np.exp(shared + own * (kind != "e"))
        sink = 1 / (1 + np.exp(-rng.normal(size=(n_languages, n_items)) * (kind != "e")))
        found.append(summaries(lengths, np.broadcast_to(strength, lengths.shape), sink))
    return np.stack(found, 2)


def write_attention(
    path: Path,
    mass: NDArray[np.float32],
    *,
    languages=("en", "de", "sw"),
    even: bool = True,
    segments=SEGMENTS,
    crossed: NDArray[np.float32] | None = None,
    prompts: PromptSet | None = None,
) -> ActivationStore:
    """A store of `attn.mass` at last tokens from (layer, language, item, head, summary)."""
    n_layers, n_items = mass.shape[0], mass.shape[2]
    items = tuple(f"q{i:03d}" for i in range(n_items))
    prompts = prompts or PromptSet("planted", tuple(_prompt(item, g) for g in languages for item in items))
    model = ModelRef("planted", "Planted", n_layers, "float32", "0" * 64, "0" * 64)
    values = {"attn.mass": mass} | ({} if crossed is None else {"attn.crossed": crossed})
    plan = CapturePlan(
        model, prompts.digest(), tuple(languages), items, expand_sites(list(values), n_layers), (Position("last"),),
        "", "torch", n_items, 4096, "float32", segments=segments, even=even,
    )  # fmt: skip
    with StoreWriter.create(path, plan, prompts, {}) as writer:
        for k, language in enumerate(languages):
            rows = {(name, Position("last")): Rows(np.ascontiguousarray(x[:, k])) for name, x in values.items()}
            kept, tokens = np.arange(n_items), np.ones(n_items, dtype=np.int64)
            writer.put(Block(language, 0, kept, rows, tokens, ("x",) * n_items))
    return ActivationStore.open(path)


def _prompt(item: str, language: str) -> Prompt:
    """Context in the first part of a code `a-b`, all else in the second."""
    first, _, second = language.partition("-")
    text = f"context of {item}. question. cue"
    bounds = (0, text.index(".") + 1, text.index("cue"), len(text))
    spans = (
        Segment("context", bounds[0], bounds[1], first),
        Segment("question", bounds[1], bounds[2], second or first),
        Segment("cue", bounds[2], bounds[3], second or first),
    )
    return Prompt(item, language, text, spans)
