"""Stores and arrays with a known truth: a shared part of every item, or none."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.schema import Block, CapturePlan, ModelRef, Position, Prompt, PromptSet, Rows, expand_sites
from babelscope.schema.prompts import Scalar

LANGUAGES = ("en", "de", "sw")


def activations(
    rng: np.random.Generator, n_languages: int, n_items: int, n_units: int, *, shared: float, language: float = 1.0
) -> NDArray[np.float32]:
    """(language, item, unit): `shared` of each item, `language` of each language, and noise of variance 1."""
    meaning = rng.normal(size=(1, n_items, n_units))
    tongue = rng.normal(size=(n_languages, 1, n_units))
    noise = rng.normal(size=(n_languages, n_items, n_units))
    return (shared * meaning + language * tongue + noise).astype(np.float32)


def write_store(
    path: Path,
    values: Mapping[str, NDArray[np.float32]],
    *,
    demand: Sequence[str | None] | None = None,
    covariates: Sequence[Mapping[str, Scalar]] | None = None,
    languages: Sequence[str] = LANGUAGES,
    items: Sequence[str] | None = None,
    positions: Sequence[str] = ("last",),
    missing: Mapping[str, Sequence[int]] | None = None,
    n_layers: int | None = None,
    text: str = "{item} in {language}",
) -> ActivationStore:
    """A store with site name -> (layer, language, item, *unit).

    `demand` and `covariates` say what is known about each item, `missing` names the items that a language lacks.
    """
    n_items = next(iter(values.values())).shape[2]
    names = tuple(items) if items is not None else tuple(f"q{i:03d}" for i in range(n_items))
    depth = n_layers or max(v.shape[0] for v in values.values())
    facts = [dict(c) for c in covariates or [{}] * n_items]
    for known, value in zip(facts, demand or [], strict=bool(demand)):
        known.update({"demand": value} if value is not None else {})
    prompts = PromptSet(
        "planted",
        tuple(
            Prompt(item, language, text.format(item=item, language=language), covariates=facts[i])
            for language in languages
            for i, item in enumerate(names)
        ),
    )
    model = ModelRef("planted", "Planted", depth, "float32", "0" * 64, "0" * 64)
    sites = expand_sites([f"{s}@0:{v.shape[0]}" if s != "embed" else s for s, v in values.items()], depth)
    where = tuple(Position.parse(p) for p in positions)
    plan = CapturePlan(
        model, prompts.digest(), tuple(languages), names, sites, where, False, "torch", n_items, 4096, "float32"
    )
    with StoreWriter.create(path, plan, prompts, {}) as writer:
        for k, language in enumerate(languages):
            kept = np.array([i for i in range(n_items) if i not in (missing or {}).get(language, ())])
            rows = {(s, p): Rows(v[:, k][:, kept]) for s, v in values.items() for p in where}
            failed = {i: "too long" for i in range(n_items) if i not in kept}
            tokens = np.ones(len(kept), dtype=np.int64)
            writer.put(Block(language, 0, kept, rows, tokens, ("x",) * len(kept), failed=failed))
    return ActivationStore.open(path)
