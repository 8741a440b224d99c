"""One batch through the model: the rows of every site and position, and the logits where they are wanted."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.answers import last_token_only
from babelscope.hooks.laws import observing
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.place import Place, by_prompt, tapped
from babelscope.hooks.positions import Picker, tokens_at
from babelscope.hooks.tap import place_of, tap_of
from babelscope.hooks.tokens import Encoded, pad
from babelscope.schema import CapturePlan, Position, Prompt, Site

Key = tuple[str, Position]


@dataclass(frozen=True, slots=True)
class BatchRows:
    """What one batch gave.

    Parameters
    ----------
    values : mapping
        (site name, position) -> (layer, row, *unit) on the host, in the dtype of the plan.
    logits : Tensor or None
        (prompt, vocabulary) after the last token.
    law_errors : mapping
        Of this batch, where laws were observed.
    """

    values: Mapping[Key, Tensor]
    logits: Tensor | None = None
    law_errors: Mapping[str, float] = field(default_factory=dict)


def run_batch(
    loaded: LoadedModel,
    plan: CapturePlan,
    prompts: Sequence[Prompt],
    encoded: Sequence[Encoded],
    *,
    logits: bool = False,
    laws: bool = False,
) -> BatchRows:
    """Run some prompts as one right-padded batch. No hook outlives the call, whatever happens.

    Parameters
    ----------
    prompts, encoded : sequence
        The same prompts; every position must pick something in each.
    logits : bool
        Run the unembedding, on the last tokens only.
    laws : bool
        Check the laws of all sites of the model on a sample of tokens. The pass is then run to its end.

    Raises
    ------
    BabelScopeError
        If a law fails, or if values overflow the stored dtype.
    """
    ids, mask = pad(loaded, encoded)
    pickers = {
        position: Picker(
            position, [tokens_at(position, p, e) for p, e in zip(prompts, encoded, strict=True)], loaded.device
        )
        for position in plan.positions
    }
    found: dict[tuple[Site, Position], Tensor] = {}

    def keep(site: Site, x: Tensor) -> None:
        for position, picker in pickers.items():
            rows = tap_of(site.kind).reshape(picker(by_prompt(x, mask)), loaded.anatomy, site.layer or 0)
            found[site, position] = _stored(rows, site, plan.dtype)

    places = {site: place_of(loaded.anatomy, site) for site in plan.sites}
    stop_at = None if logits or laws else last_place(loaded, plan)
    output: Any = None
    with torch.inference_mode(), ExitStack() as stack:
        observed = stack.enter_context(observing(loaded.anatomy, mask)) if laws else None
        if logits and loaded.anatomy.unembedding is not None:
            stack.enter_context(last_token_only(loaded.anatomy.unembedding, mask.sum(1) - 1))
        stack.enter_context(tapped(places, keep, stop_at))
        output = forward(loaded, ids, mask, head=logits)  # stays None where the pass is stopped on its way
    scores = output.logits[:, 0] if logits else None
    return BatchRows(_stacked(plan, found), scores, observed.errors() if observed else {})


def forward(loaded: LoadedModel, ids: Tensor, mask: Tensor, *, head: bool, **options: bool) -> Any:
    """Call the model, or only its body, without a cache; position ids are its own affair under right padding."""
    module = loaded.model if head else loaded.anatomy.body
    if "use_cache" in inspect.signature(module.forward).parameters:
        options["use_cache"] = False
    return module(input_ids=ids, attention_mask=mask, **options)


def last_place(loaded: LoadedModel, plan: CapturePlan) -> Place:
    """Behind the last block that a site of the plan lies in; nobody reads what comes after."""
    layers = [site.layer for site in plan.sites if site.layer is not None]
    if not layers:
        return Place(loaded.anatomy.layers[0].module, "input")
    return Place(loaded.anatomy.layers[max(layers)].module, "output")


def _stored(rows: Tensor, site: Site, dtype: str) -> Tensor:
    cast = rows.to(DTYPES[dtype])
    if dtype == "float16" and rows.dtype != torch.float16 and bool((cast.isinf() & rows.isfinite()).any()):
        largest = rows.abs().amax().item()
        raise BabelScopeError(
            f"site {site}: values up to {largest:.3g} overflow float16, which ends at 65504",
            "store bfloat16 or float32 instead (--dtype)",
        )
    return cast


def _stacked(plan: CapturePlan, found: Mapping[tuple[Site, Position], Tensor]) -> dict[Key, Tensor]:
    groups: dict[Key, list[Tensor]] = {}
    for site in plan.sites:
        for position in plan.positions:
            groups.setdefault((site.name, position), []).append(found[site, position])
    # One copy to the host per dataset; the layers of a model spread over devices meet on the first one.
    return {key: torch.stack([x.to(layers[0].device) for x in layers]).cpu() for key, layers in groups.items()}


def to_numpy(values: Tensor) -> NDArray[np.generic]:
    """The array behind a tensor on the host; bfloat16, which NumPy lacks, as `ml_dtypes.bfloat16`."""
    array: NDArray[np.generic]
    if values.dtype == torch.bfloat16:
        array = values.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    else:
        array = values.numpy()
    return array
