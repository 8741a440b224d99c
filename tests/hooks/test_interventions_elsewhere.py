"""Edits of ours against the same edits made by TransformerLens and by nnsight: the logits agree."""

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor

from babelscope.hooks import LoadedModel, make_plan
from babelscope.hooks.answers import last_token_only
from babelscope.hooks.backends import nnsight, transformer_lens
from babelscope.hooks.backends.nnsight import NnsightPass
from babelscope.hooks.backends.torch import without_cache
from babelscope.hooks.bridged import BridgePass
from babelscope.hooks.interventions import Edit, PromptBatch, activations, effect, patch, read_prompts, steer, zero
from babelscope.schema import CapturePlan, PromptSet, Site

Load = Callable[[str], LoadedModel]
KINDS = ("resid.post", "mlp.neurons", "attn.heads", "mlp.out")
INSIDE = ("attn.q", "attn.k", "attn.v")  # of these nnsight has no module to assign to
MODELS = {"llama": ("",), "gpt2": ("",), "gemma2": ("",), "mt5": ("enc", "dec")}
CASES = [
    (backend, name, Site(kind, 1, tag))
    for backend, kinds in (("nnsight", KINDS), ("transformer-lens", (*KINDS, *INSIDE)))
    for name, tags in MODELS.items()
    for tag in tags
    for kind in kinds
]
# What is put in place of a row of the site -> what ours is called with.
Change = Callable[[Tensor], Tensor]
# nnsight runs the very modules; the bridge computes attention step by step, in functions of its own. The largest
# differences of float32 logits measured: 0, and 1.9e-6 in Llama, 1.7e-6 in GPT-2, 7.2e-7 in Gemma 2, 4.9e-6 in mT5.
TOLERANCE = {"nnsight": 0.0, "transformer-lens": 2e-5}


def changes(loaded: LoadedModel, site: Site, prompts: PromptSet) -> dict[str, tuple[Edit, Change]]:
    """Edits of the last token, and by hand the same change of its rows (prompt, width)."""
    others = read_prompts(loaded, [*prompts.of("zh")], decoder="copy")
    source = activations(loaded, others, [site], "last")[site]
    vector = torch.randn(source.values.shape[1:], generator=torch.Generator().manual_seed(0))
    return {
        "zero": (zero("last"), torch.zeros_like),
        "steer": (steer(vector, 2.5, "last"), lambda rows: rows + 2.5 * vector.flatten()),
        "patch": (patch(source), lambda rows: source.values.flatten(1)),
    }


def put(x: Tensor, change: Change, last: Tensor) -> Tensor:
    """The whole tensor with the row of each prompt's last token changed; heads may have an axis of their own."""
    rows, flat = torch.arange(len(x)), x.reshape(*x.shape[:2], -1).clone()
    flat[rows, last] = change(flat[rows, last])
    return flat.reshape(x.shape)


def plan_of(loaded: LoadedModel, prompts: PromptSet, backend: str, sites: list[Site]) -> CapturePlan:
    return make_plan(loaded, prompts, sites=[*map(str, sites)], positions=["last"], backend=backend, decoder="copy")


@pytest.fixture(scope="module")
def bridge(load: Load, prompts: PromptSet) -> Callable[[str], BridgePass]:
    """The bridge to a model, with all the sites that are edited in it; building one takes longer than its edits."""

    def get(name: str) -> BridgePass:
        sites = [site for backend, other, site in CASES if (backend, other) == ("transformer-lens", name)]
        plan = plan_of(load(name), prompts, "transformer-lens", sites)
        return transformer_lens.backend.open(load(name), plan)

    return cache(get)


def through_nnsight(run: NnsightPass, batch: PromptBatch, site: Site, change: Change) -> Tensor:
    loaded, (read,) = run.loaded, run.reads
    inputs = batch.tokens.inputs() | without_cache(loaded.model)
    last, found = batch.tokens.mask_of(site.stack).sum(1) - 1, {}
    with (
        last_token_only(loaded.anatomy.unembedding, batch.tokens.output_mask.sum(1) - 1),
        torch.no_grad(),
        run.envoy.trace(**inputs),
    ):
        module = run.envoy.get(read.path)
        if read.end == "input":
            module.input = put(module.input, change, last)
        elif isinstance(module.output, tuple):
            module.output = (put(module.output[0], change, last), *module.output[1:])
        else:
            module.output = put(module.output, change, last)
        found["logits"] = run.envoy.output.logits[:, 0].clone()
    return found["logits"]


def through_the_bridge(run: BridgePass, batch: PromptBatch, site: Site, change: Change) -> Tensor:
    last, output_last = (m.sum(1) - 1 for m in (batch.tokens.mask_of(site.stack), batch.tokens.output_mask))
    inputs = batch.tokens.inputs() | without_cache(run.loaded.model)

    def hook(x: Tensor, hook: object) -> Tensor:
        return put(x, change, last)

    with torch.no_grad(), run.bridge.hooks(fwd_hooks=[(run.sources[site], hook)]):
        logits = run.bridge(inputs.pop("input_ids"), return_type="logits", **inputs)
    return logits[torch.arange(len(logits)), output_last]


@pytest.mark.parametrize(("backend", "name", "site"), CASES, ids=[" ".join(map(str, case)) for case in CASES])
def test_an_edit_does_what_it_does_elsewhere(
    backend: str, name: str, site: Site, load: Load, prompts: PromptSet, bridge: Callable[[str], BridgePass]
) -> None:
    loaded = load(name)
    few = PromptSet("few", tuple(p for p in prompts.prompts if p.item in ("item-0", "item-2", "item-4")))
    batch = read_prompts(loaded, [*few.of("en")], decoder="copy")
    sizes = []
    if backend == "nnsight":
        elsewhere = partial(through_nnsight, nnsight.backend.open(loaded, plan_of(loaded, few, backend, [site])))
    else:
        elsewhere = partial(through_the_bridge, bridge(name))
    for edit, change in changes(loaded, site, few).values():
        ours = effect(loaded, batch, {site: edit})
        theirs = elsewhere(batch, site, change)
        difference = float((ours.logits_after - theirs).abs().max())
        assert difference <= TOLERANCE[backend]
        sizes.append(float((ours.logits_after - ours.logits_before).abs().max()))
    assert max(sizes) > 1e-3  # each prompt ends in the same token, so a patch of its values can be next to nothing
