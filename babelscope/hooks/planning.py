"""From what the user typed to a plan, and what the plan will cost."""

import math
from collections.abc import Sequence
from dataclasses import replace

from babelscope.errors import BabelScopeError, unknown_name
from babelscope.hooks.answers import labels_of
from babelscope.hooks.context import check_lengths
from babelscope.hooks.language_tokens import source_tokens
from babelscope.hooks.mixture import check_experts
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.positions import NoTokensError, row_sizes
from babelscope.hooks.tap import place_of, unit_of
from babelscope.hooks.tokens import Encoded, decoder_tokens, encode_prompts
from babelscope.qcross.injection import config_of
from babelscope.schema import (
    ANSWERS,
    DECODER_POLICIES,
    LEVERS,
    ON_OVERFLOW,
    CapturePlan,
    Position,
    PromptSet,
    Site,
    expand_sites,
)

# Large enough to keep a CPU or a GPU busy, small enough for the activations of one layer to stay in memory.
TOKEN_BUDGET = 4096


def make_plan(
    loaded: LoadedModel,
    prompts: PromptSet,
    *,
    sites: Sequence[str],
    positions: Sequence[str],
    answers: str = "labels",
    continuation: int = 0,
    backend: str = "torch",
    block_items: int = 64,
    token_budget: int = TOKEN_BUDGET,
    dtype: str | None = None,
    decoder: str = "start",
    levers: Sequence[str] = tuple(LEVERS),
    on_overflow: str = "stop",
) -> CapturePlan:
    """What will be captured, with every name checked against this model.

    Parameters
    ----------
    sites, positions : sequence of str
        As `resid.post`, `mlp.act@2:6`; as `last`, `segment:question`.
    answers : str
        A key of `ANSWERS`. Labels are scored where the model predicts the next token and prompts have options.
    continuation : int
        Tokens that the model may continue each prompt by.
    dtype : str, optional
        Stored dtype; that of the model by default. `int8` keeps 8 bits per value, with a scale for each unit.
    decoder : str
        What the decoder of an encoder-decoder reads, a key of `DECODER_POLICIES`; other models ignore it.
    levers : sequence of str
        Keys of `LEVERS` that may be used; the plan names those that apply to it.
    on_overflow : str
        A key of `ON_OVERFLOW`. Only a cast to float16 is ever clipped.

    Raises
    ------
    BabelScopeError
        For unknown sites, layers and positions, for sites that this model lacks, where a segment is in none of
        the prompts, where a prompt leaves the context, where texts are asked of a model that writes none, and for
        languages that a tokenizer which names them lacks.
    """
    if not sites or not positions:
        raise BabelScopeError(
            f"no {'positions' if sites else 'sites'} were named", "add --site resid.post and --position last"
        )
    if block_items < 1 or token_budget < 1:
        raise BabelScopeError("block_items and token_budget must be 1 or more", "leave them out for the defaults")
    stored = dtype or (loaded.ref.dtype if loaded.ref.dtype in DTYPES else "float32")
    if stored not in (*DTYPES, "int8"):
        raise BabelScopeError(f"activations cannot be stored as {stored!r}", f"choose {', '.join(DTYPES)} or int8")
    if on_overflow not in ON_OVERFLOW:
        raise unknown_name("overflow policy", on_overflow, ON_OVERFLOW)
    if config_of(loaded.model) is not None and (backend != "torch" or continuation):
        raise BabelScopeError(
            f"{loaded.anatomy.name} has a cross-lingual query, which reads the language of each token",
            "leave --continue out, and use --backend torch: no other hands the languages on",
        )
    expanded = expand_sites(sites, loaded.ref.depths)
    for site in expanded:
        place_of(loaded.anatomy, site)
    if decoder not in DECODER_POLICIES:
        raise unknown_name("decoder policy", decoder, DECODER_POLICIES)
    check_lengths(loaded, prompts, decoder)
    _check_answers(answers, continuation, loaded, prompts)
    for lever in levers:
        if lever not in LEVERS:
            raise unknown_name("lever", lever, LEVERS)
    chosen = tuple(dict.fromkeys(Position.parse(p) for p in positions))
    segments = _segments(expanded, prompts)
    _check_segments([*chosen, *(Position("segment", name) for name in segments)], loaded, prompts)
    asked = answers if answers != "none" and loaded.answers_questions and _any_options(prompts) else ""
    plan = CapturePlan(
        model=loaded.ref,
        prompts_sha256=prompts.digest(),
        languages=prompts.languages,
        items=prompts.items,
        sites=expanded,
        positions=chosen,
        answers=asked,
        backend=backend.replace("_", "-"),  # one spelling, since it is part of the identity of a store
        block_items=block_items,
        token_budget=token_budget,
        dtype=stored,
        decoder=decoder if loaded.ref.n_encoder_layers else "",
        continuation=continuation,
        segments=segments,
        even=any("summary" in site.axes for site in expanded),
        spellings=bool(asked),
        source_tokens=source_tokens(loaded.tokenizer, prompts.languages),
        levers=tuple(x for x in LEVERS if x in levers and _levers_apply(loaded, backend, expanded, chosen)),
        on_overflow=on_overflow if stored == "float16" != loaded.ref.dtype else "stop",
    )
    if any("key" in site.axes for site in expanded):
        plan = replace(plan, n_keys=_longest(plan, loaded, prompts))
    units(plan, loaded)
    check_experts(plan, loaded.anatomy)
    return plan


def _any_options(prompts: PromptSet) -> bool:
    return any(labels_of(p) for p in prompts.prompts)


def _check_answers(answers: str, continuation: int, loaded: LoadedModel, prompts: PromptSet) -> None:
    if answers not in ANSWERS:
        raise unknown_name("way to answer", str(answers), ANSWERS)
    if continuation < 0:
        raise BabelScopeError(f"prompts cannot be continued by {continuation} tokens", "give 0 or more")
    if (answers == "texts" or continuation) and not loaded.answers_questions:
        raise BabelScopeError(
            f"{loaded.anatomy.name} does not continue texts: it predicts no next token",
            "leave out --continue, and give --answers labels or none",
        )
    if answers == "texts" and not any(p.options for p in prompts.prompts):
        raise BabelScopeError(f"no prompt of {prompts.name!r} has options", "leave out --answers texts")


def _segments(sites: Sequence[Site], prompts: PromptSet) -> tuple[str, ...]:
    """Segment names of all prompts, where a site sums attention up over them."""
    if not any("summary" in site.axes for site in sites):
        return ()
    return tuple(sorted({s.name for p in prompts.prompts for s in p.segments}))


def _longest(plan: CapturePlan, loaded: LoadedModel, prompts: PromptSet) -> int:
    """Tokens of the longest prompt that any stack reads."""
    encoded = encode_prompts(loaded.tokenizer, prompts.prompts)
    decoder = decoder_tokens(loaded, plan.decoder, prompts.prompts, encoded)
    return max(map(len, [*encoded, *(decoder or [])]))


def _levers_apply(loaded: LoadedModel, backend: str, sites: Sequence[Site], positions: Sequence[Position]) -> bool:
    """Whether last tokens of one stack are all that is taken, and nothing inside of attention or of experts."""
    inside = {s.kind for s in sites if s.kind.startswith(("attn.", "moe."))} - {"attn.out", "attn.heads"}
    last = all(position.kind == "last" for position in positions)
    if config_of(loaded.model) is not None:  # a prompt that is continued or cut has other languages
        return False
    return backend == "torch" and last and not inside and set(loaded.anatomy.stacks) == {""}


def _check_segments(positions: Sequence[Position], loaded: LoadedModel, prompts: PromptSet) -> None:
    named = {s.name for p in prompts.prompts for s in p.segments}
    for position in positions:
        if position.kind not in ("segment", "words"):
            continue
        if position.segment and position.segment not in named:
            raise BabelScopeError(
                f"no prompt of {prompts.name!r} has a segment called {position.segment!r}",
                f"segments there: {', '.join(sorted(named)) or 'none'}",
            )
        if not loaded.tokenizer.is_fast:
            raise BabelScopeError(
                f"the tokenizer of {loaded.ref.source} does not say which characters its tokens cover",
                "leave out segments, words and mass, or save the model with a fast tokenizer (tokenizer.json)",
            )


def units(plan: CapturePlan, loaded: LoadedModel) -> dict[str, tuple[int, ...]]:
    """Site name -> shape of one row."""
    named: dict[str, list[Site]] = {}
    for site in plan.sites:
        named.setdefault(site.name, []).append(site)
    return {name: unit_of(loaded.anatomy, sites) + plan.extents(sites[0]) for name, sites in named.items()}


def estimate(plan: CapturePlan, loaded: LoadedModel, prompts: PromptSet) -> tuple[int, int]:
    """Tokens that will be read, and bytes of activations that will be written.

    Returns
    -------
    tokens : int
        Without padding.
    store_bytes : int
        Of the values alone; the store adds a few kB per shard.
    """
    encoded = encode_prompts(loaded.tokenizer, prompts.prompts)
    decoder = decoder_tokens(loaded, plan.decoder, prompts.prompts, encoded)
    shapes = units(plan, loaded)
    size = 0
    for tag, tokens in (("", encoded), ("enc", encoded), ("dec", decoder)):
        values = sum(math.prod(shapes[site.name]) for site in plan.sites if site.row_stack == tag)
        if values and tokens is not None:
            size += values * _rows(plan.positions, prompts, tokens) * {"float32": 4, "int8": 1}.get(plan.dtype, 2)
    return sum(map(len, [*encoded, *(decoder or [])])), size


def _rows(positions: Sequence[Position], prompts: PromptSet, encoded: Sequence[Encoded]) -> int:
    rows = 0
    for prompt, tokens in zip(prompts.prompts, encoded, strict=True):
        for position in positions:
            try:
                rows += len(row_sizes(position, prompt, tokens))
            except NoTokensError:
                continue
    return rows
