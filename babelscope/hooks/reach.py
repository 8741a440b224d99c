"""What a backend can reach in a model: proven once, when a plan is opened, against hooks on the model itself."""

from collections.abc import Iterable

import torch
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.backends import torch as native
from babelscope.hooks.capture import ForwardPass
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.place import by_prompt
from babelscope.hooks.probe import PROBE_IDS
from babelscope.hooks.tap import stack_of, tap_of
from babelscope.hooks.tokens import Batch, Encoded, make_batch
from babelscope.hooks.tolerance import PASS, typical_error
from babelscope.schema import CapturePlan, Site


def not_reachable(what: object, backend: str, reason: str) -> BabelScopeError:
    """The error for a site, or a whole model, that a backend cannot give."""
    return BabelScopeError(
        f"{what} is not reachable with the backend {backend}, because {reason}",
        "leave it out, or use --backend torch, which reaches every site",
    )


def refuse_unknown(plan: CapturePlan, known: Iterable[str], backend: str) -> None:
    """Refuse kinds of sites that a backend was never taught.

    Raises
    ------
    BabelScopeError
        Naming the first of them.
    """
    for site in plan.sites:
        if site.kind not in known:
            raise not_reachable(f"site {site}", backend, f"that backend has no way to {site.kind}")


def sample_batch(loaded: LoadedModel) -> Batch:
    """Two short prompts of different lengths, made of ids alone, and other ids for a decoder."""
    table = loaded.anatomy.output_stack.embedding.weight
    assert isinstance(table, Tensor)
    pad = loaded.model.config.get_text_config().pad_token_id
    ids = [(i + 6 if i == pad else i) % len(table) for i in PROBE_IDS]
    prompts = [Encoded(tuple(ids), None), Encoded(tuple(ids[:5]), None)]
    decoder = [Encoded(tuple(ids[4::-1]), None), Encoded(tuple(ids[7:4:-1]), None)]
    return make_batch(loaded, prompts, decoder if "dec" in loaded.anatomy.stacks else None)


def check_agreement(forward: ForwardPass, loaded: LoadedModel, plan: CapturePlan, backend: str) -> None:
    """Compare every site of a plan, and the logits, with what the model itself gives on two short prompts.

    Raises
    ------
    BabelScopeError
        "not reachable, because ...": naming a site that never came or holds something else.
    """
    batch, head = sample_batch(loaded), loaded.anatomy.unembedding is not None
    expected, bare = seen_rows(native.backend.open(loaded, plan), loaded, batch, logits=head)
    found, logits = seen_rows(forward, loaded, batch, logits=head)
    for site in plan.sites:
        if site not in found:
            raise not_reachable(f"site {site}", backend, "it is never seen in a forward pass")
        if reason := disagreement(found[site], expected[site], loaded):
            raise not_reachable(f"site {site}", backend, reason)
    if bare is not None:
        assert logits is not None
        if reason := disagreement(logits, bare, loaded):
            raise not_reachable(f"the output of {loaded.anatomy.name}", backend, reason)


def disagreement(found: Tensor, expected: Tensor, loaded: LoadedModel) -> str:
    """Why what a backend gives is not what the model gives; empty if it is, up to the roundings of a pass."""
    if found.shape != expected.shape:
        return f"what it gives has the shape {tuple(found.shape)} in place of {tuple(expected.shape)}"
    # A key that a query does not see has no score, a prompt without a segment no mass on it.
    found, undefined = found.to(expected.device), expected.isnan()
    if not torch.equal(found.isnan(), undefined):
        return "what it gives is another quantity (undefined for other tokens or keys)"
    error = typical_error(found.masked_fill(undefined, 0), expected.masked_fill(undefined, 0))
    if not error <= PASS[loaded.model.dtype]:
        return f"what it gives is another quantity (relative difference {error:.1e})"
    return ""


def seen_rows(
    forward: ForwardPass, loaded: LoadedModel, batch: Batch, *, logits: bool
) -> tuple[dict[Site, Tensor], Tensor | None]:
    """Real tokens of each site that is seen, (token, *unit), and the last logits."""
    found: dict[Site, Tensor] = {}

    def keep(site: Site, x: Tensor) -> None:
        mask = batch.mask_of(site.row_stack).bool()
        try:
            rows = by_prompt(x, mask)[mask.to(x.device)]
            found[site] = tap_of(site.kind).reshape(rows, stack_of(loaded.anatomy, site), site.layer or 0)
        except (RuntimeError, IndexError):
            found[site] = x.clone()  # of a shape that no rows of this site can have, as its comparison will tell

    passed = forward(batch, keep, logits=logits, laws=False)
    return found, passed.logits
