"""From what the user typed to a plan, and what the plan will cost."""

from collections.abc import Sequence

from babelscope.errors import BabelScopeError
from babelscope.hooks.answers import labels_of
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.positions import NoTokensError, tokens_at
from babelscope.hooks.tap import place_of, unit_of
from babelscope.hooks.tokens import encode
from babelscope.schema import CapturePlan, Position, PromptSet, expand_sites

# Large enough to keep a CPU or a GPU busy, small enough for the activations of one layer to stay in memory.
TOKEN_BUDGET = 4096


def make_plan(
    loaded: LoadedModel,
    prompts: PromptSet,
    *,
    sites: Sequence[str],
    positions: Sequence[str],
    answers: bool = True,
    backend: str = "torch",
    block_items: int = 64,
    token_budget: int = TOKEN_BUDGET,
    dtype: str | None = None,
) -> CapturePlan:
    """What will be captured, with every name checked against this model.

    Parameters
    ----------
    sites, positions : sequence of str
        As `resid.post`, `mlp.act@2:6`; as `last`, `segment:question`.
    answers : bool
        Score the options; only causal models and prompts with options give answers.
    dtype : str, optional
        Stored dtype; that of the model by default.

    Raises
    ------
    BabelScopeError
        For unknown sites, layers and positions, for sites that this model lacks, and where a segment is in
        none of the prompts.
    """
    if not sites or not positions:
        raise BabelScopeError(
            f"no {'positions' if sites else 'sites'} were named", "add --site resid.post and --position last"
        )
    if block_items < 1 or token_budget < 1:
        raise BabelScopeError("block_items and token_budget must be 1 or more", "leave them out for the defaults")
    stored = dtype or (loaded.ref.dtype if loaded.ref.dtype in DTYPES else "float32")
    if stored not in DTYPES:
        raise BabelScopeError(f"activations cannot be stored as {stored!r}", f"choose {', '.join(DTYPES)}")
    expanded = expand_sites(sites, loaded.ref.n_layers)
    for site in expanded:
        place_of(loaded.anatomy, site)
    chosen = tuple(dict.fromkeys(Position.parse(p) for p in positions))
    _check_segments(chosen, loaded, prompts)
    plan = CapturePlan(
        model=loaded.ref,
        prompts_sha256=prompts.digest(),
        languages=prompts.languages,
        items=prompts.items,
        sites=expanded,
        positions=chosen,
        answers=answers and loaded.answers_questions and any(labels_of(p) for p in prompts.prompts),
        backend=backend,
        block_items=block_items,
        token_budget=token_budget,
        dtype=stored,
    )
    units(plan, loaded)
    return plan


def _check_segments(positions: Sequence[Position], loaded: LoadedModel, prompts: PromptSet) -> None:
    named = {s.name for p in prompts.prompts for s in p.segments}
    for position in positions:
        if position.kind != "segment":
            continue
        if position.segment not in named:
            raise BabelScopeError(
                f"no prompt of {prompts.name!r} has a segment called {position.segment!r}",
                f"segments there: {', '.join(sorted(named)) or 'none'}",
            )
        if not loaded.tokenizer.is_fast:
            raise BabelScopeError(
                f"the tokenizer of {loaded.ref.source} does not say which characters its tokens cover",
                "leave out segment positions, or save the model with a fast tokenizer (tokenizer.json)",
            )


def units(plan: CapturePlan, loaded: LoadedModel) -> dict[str, tuple[int, ...]]:
    """Site name -> shape of one row."""
    layers = plan.site_layers()
    kinds = {site.name: site.kind for site in plan.sites}
    return {name: unit_of(loaded.anatomy, kinds[name], found) for name, found in layers.items()}


def estimate(plan: CapturePlan, loaded: LoadedModel, prompts: PromptSet) -> tuple[int, int]:
    """Tokens that will be read, and bytes of activations that will be written.

    Returns
    -------
    tokens : int
        Without padding.
    store_bytes : int
        Of the values alone; the store adds a few kB per shard.
    """
    encoded = encode(loaded.tokenizer, [p.text for p in prompts.prompts])
    shapes, layers = units(plan, loaded), plan.site_layers()
    row = 0
    for name, shape in shapes.items():
        size = len(layers[name])
        for extent in shape:
            size *= extent
        row += size * (4 if plan.dtype == "float32" else 2)
    rows = 0
    for prompt, tokens in zip(prompts.prompts, encoded, strict=True):
        for position in plan.positions:
            try:
                found = len(tokens_at(position, prompt, tokens))
            except NoTokensError:
                continue
            rows += found if position.ragged else 1
    return sum(map(len, encoded)), rows * row
