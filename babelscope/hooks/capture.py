"""One batch through the model: the rows of every site and position, and the logits where they are wanted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from babelscope.errors import BabelScopeError
from babelscope.hooks.languages import token_languages
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.place import by_prompt
from babelscope.hooks.positions import Picker, picker, segment_tokens
from babelscope.hooks.tap import stack_of, tap_of
from babelscope.hooks.tokens import Batch, Encoded, decoder_tokens, make_batch
from babelscope.schema import CapturePlan, Position, Prompt, Site

Key: TypeAlias = tuple[str, Position]
Keep: TypeAlias = Callable[[Site, Tensor], None]


@dataclass(frozen=True, slots=True)
class Passed:
    """What a forward pass gave beside the tensors that it handed to `keep`.

    Parameters
    ----------
    logits : Tensor or None
        (prompt, vocabulary) after the last token that the unembedding reads.
    law_errors : mapping
        Of this batch, where laws were observed.
    """

    logits: Tensor | None = None
    law_errors: Mapping[str, float] = field(default_factory=dict)


class ForwardPass(Protocol):
    """One plan on one model in one backend."""

    def __call__(self, batch: Batch, keep: Keep, *, logits: bool, laws: bool) -> Passed:
        """Run a batch, and call `keep` once for each site of the plan with its tensor, (prompt, token, *unit).

        `keep` copies what it wants, so a tensor may be changed in place afterwards. Where a plan asks for last
        tokens only, the tensor may hold those alone: (prompt, 1, *unit).
        """


@dataclass(frozen=True, slots=True)
class BatchRows:
    """What one batch gave.

    Parameters
    ----------
    values : mapping
        (site name, position) -> (layer, row, *unit) on the host, in the dtype of the plan.
    passed : Passed
    not_finite : mapping
        Site -> first prompt of the batch in whose rows some value is NaN or infinite that the site defines.
    """

    values: Mapping[Key, Tensor]
    passed: Passed
    not_finite: Mapping[Site, int] = field(default_factory=dict)


def run_batch(
    forward: ForwardPass,
    loaded: LoadedModel,
    plan: CapturePlan,
    prompts: Sequence[Prompt],
    encoded: Sequence[Encoded],
    *,
    shared: tuple[int, ...] = (),
    logits: bool = False,
    laws: bool = False,
) -> BatchRows:
    """Run some prompts as one right-padded batch.

    Parameters
    ----------
    prompts, encoded : sequence
        The same prompts; every position must pick something in each.
    shared : tuple of int
        Lengths of the nested runs of tokens that all of them begin with.
    logits : bool
        Run the unembedding, on the last tokens only.
    laws : bool
        Check the laws of all sites of the model on a sample of tokens.

    Raises
    ------
    BabelScopeError
        If a law fails, or if values overflow the stored dtype.
    """
    decoder = decoder_tokens(loaded, plan.decoder, prompts, encoded)
    languages = token_languages(loaded.model, prompts, encoded, loaded.device)
    batch = replace(make_batch(loaded, encoded, decoder), shared=shared, languages=languages)
    stacks = {tag: tokens for tag, tokens in (("", encoded), ("enc", encoded), ("dec", decoder)) if tokens is not None}
    if plan.segments:
        found_in = {tag: segment_tokens(loaded.device, plan.segments, prompts, x) for tag, x in stacks.items()}
        batch = replace(batch, segments=found_in)
    pickers = {
        tag: {position: picker(position, prompts, tokens, loaded.device) for position in plan.positions}
        for tag, tokens in stacks.items()
        if any(site.row_stack == tag for site in plan.sites)
    }
    found: dict[tuple[Site, Position], Tensor] = {}
    not_finite: dict[Site, int] = {}

    def keep(site: Site, x: Tensor) -> None:
        stack, tap = stack_of(loaded.anatomy, site), tap_of(site.kind)
        for position, pick in pickers[site.row_stack].items():
            # One column is the last token itself, from a pass that computes no other.
            alone = position.kind == "last" and x.shape[:2] == (len(batch), 1)
            rows = x[:, 0].clone() if alone else pick(by_prompt(x, batch.mask_of(site.row_stack)))
            keys = batch.key_mask(site)[pick.prompts].to(rows.device) if "key" in site.axes else None
            if tap.defined is not None:  # as long as NaN that stands for something can be told from others
                own = rows if keys is None else rows.masked_fill(~keys.bool()[:, None], 0)
                _note_not_finite(not_finite, site, tap.defined(own), pick.prompts)
            rows = tap.reshape(rows, stack, site.layer or 0)
            if keys is not None:
                rows = _over_all_keys(rows, keys, plan.n_keys, tap.beyond)
            found[site, position] = _cast(rows, site, plan.row_dtype, prompts, pick)

    passed = forward(batch, keep, logits=logits, laws=laws)
    values = _stacked(plan, found)
    for (name, position), layers in values.items():
        sites = [site for site in plan.sites if site.name == name]
        # A sum is finite if all its terms are, and takes one pass over all layers.
        if tap_of(sites[0].kind).defined is None and not layers.sum(dtype=torch.float64).isfinite():
            for site, rows in zip(sites, layers, strict=True):
                _note_not_finite(not_finite, site, rows, pickers[site.row_stack][position].prompts)
    return BatchRows(values, passed, not_finite)


def _note_not_finite(found: dict[Site, int], site: Site, rows: Tensor, prompts: Tensor) -> None:
    """Note the first prompt in whose rows a value is not finite, unless one was noted before."""
    if site not in found and not rows.isfinite().all():
        broken = (~rows.isfinite()).flatten(1).any(1)
        found[site] = int(prompts.to(rows.device)[broken].min())


def _over_all_keys(rows: Tensor, keys: Tensor, n_keys: int, beyond: float) -> Tensor:
    """(row, head, key) with `beyond` behind the keys of each row's own prompt, up to the longest prompt of the plan."""
    return functional.pad(rows.masked_fill(~keys.bool()[:, None], beyond), (0, n_keys - rows.shape[-1]), value=beyond)


def _cast(rows: Tensor, site: Site, dtype: str, prompts: Sequence[Prompt], pick: Picker) -> Tensor:
    """Rows in another dtype, or an error that names the first row with a value that float16 cannot hold."""
    cast = rows.to(DTYPES[dtype])
    if dtype != "float16" or rows.dtype == torch.float16:
        return cast
    lost = cast.isinf() & rows.isfinite()
    if bool(lost.any()):
        largest = rows[lost].abs().amax().item()
        prompt = prompts[int(pick.prompts[int(lost.flatten(1).any(1).nonzero()[0])])]
        raise BabelScopeError(
            f"site {site}: values up to {largest:.3g} overflow float16, which ends at 65504 "
            f"(item {prompt.item!r} in {prompt.language!r})",
            "store bfloat16 or float32 instead (--store-dtype), or clip and mark such rows (--on-overflow clip)",
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
