"""Seconds of doubt before hours of capture: whether this model, here, gives what its sites promise."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks.adapters import disabled
from babelscope.hooks.anatomy import Stack
from babelscope.hooks.backends.torch import forward
from babelscope.hooks.capture import BatchRows, ForwardPass, run_batch
from babelscope.hooks.laws import check_laws
from babelscope.hooks.memory import enough_memory
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.place import Place, by_prompt, tapped
from babelscope.hooks.positions import NoTokensError, tokens_at
from babelscope.hooks.tokens import Batch, Encoded, decoder_tokens, encode_prompts, make_batch
from babelscope.hooks.tolerance import LAW, PASS, largest_error, typical_error
from babelscope.schema import CapturePlan, Prompt, PromptSet

MAX_PROMPTS = 4


@enough_memory(
    "the self-test, which reads up to four prompts together",
    "name a smaller --dtype or a device with more memory; --no-self-test goes on without",
)
def self_test(loaded: LoadedModel, prompts: PromptSet, plan: CapturePlan) -> dict[str, float]:
    """Check a plan on at most four of its prompts, one per language as far as possible.

    The laws of all sites; rows alone and in a batch; block inputs and outputs against the model's own hidden
    states; that what lies under the mask does not matter; that no hook is left behind; that capturing leaves
    the model's output as it is; that an adapter does something.

    Returns
    -------
    dict
        Name of the check -> error found. Laws and hidden states are measured by the largest error relative
        to the largest value, whole passes by the relative norm of the difference (see `tolerance`).

    Raises
    ------
    BabelScopeError
        Naming the first check that fails.
    """
    chosen, encoded = _sample(loaded, prompts, plan)
    batch = make_batch(loaded, encoded, decoder_tokens(loaded, plan.decoder, chosen, encoded))
    hooks_before = count_hooks(loaded.model)
    bare = _body_output(loaded, batch)
    found = {f"law of {site}": error for site, error in check_laws(loaded.anatomy, batch).items()}
    run: ForwardPass = plugins.load("backend", plan.backend).open(loaded, plan)
    together = run_batch(run, loaded, plan, chosen, encoded)
    checks = {
        "single equals batched": _single(run, loaded, plan, chosen, encoded, together),
        "mask is honored": _masked(loaded, batch),
        "output unchanged by capturing": _unchanged(run, loaded, plan, chosen, encoded, bare, batch),
    }
    left = count_hooks(loaded.model) - hooks_before
    if left:
        raise BabelScopeError(f"self-test: {left} hooks were left behind on {loaded.anatomy.name}", "report this model")
    if loaded.switch is not None:
        found["adapter active"] = _adapter(loaded, batch, bare)
    # Last, because asking for hidden states makes transformers install hooks of its own, which stay.
    checks["equals the model's hidden states"] = _hidden_states(loaded, batch)
    for name, error in checks.items():
        limits = LAW if "hidden" in name else PASS
        tolerance = max(limits[loaded.model.dtype], limits[DTYPES[plan.dtype]])
        if not error <= tolerance:
            raise BabelScopeError(
                f"self-test of {loaded.anatomy.name} failed: {name}: "
                f"error {error:.1e}, at most {tolerance:.0e} expected",
                "try --dtype float32 or --attention eager; --no-self-test goes on regardless",
            )
    levers = {f"lever {name}": error for name, error in getattr(run, "lever_errors", {}).items()}
    return {**found, **checks, **levers, "hooks left behind": float(left)}


def count_hooks(model: nn.Module) -> int:
    """Forward hooks and pre-hooks on a model and all its parts."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def _sample(loaded: LoadedModel, prompts: PromptSet, plan: CapturePlan) -> tuple[list[Prompt], list[Encoded]]:
    """The first usable prompt of each of the first languages, then further prompts; four in all."""
    firsts = [prompts.of(language)[0] for language in prompts.languages[:MAX_PROMPTS]]
    queue = [*firsts, *(p for p in prompts.prompts[: 16 * MAX_PROMPTS] if p not in firsts)]
    usable: list[tuple[Prompt, Encoded]] = []
    for prompt, encoded in zip(queue, encode_prompts(loaded.tokenizer, queue), strict=True):
        try:
            for position in plan.positions:
                tokens_at(position, prompt, encoded)
        except NoTokensError:
            continue
        usable.append((prompt, encoded))
    if not usable:
        raise BabelScopeError(
            f"self-test: the positions {', '.join(map(str, plan.positions))} pick nothing in the first prompts",
            "check that the prompts have the segments that the positions name",
        )
    usable = usable[:MAX_PROMPTS]
    return [p for p, _ in usable], [e for _, e in usable]


def _body_output(loaded: LoadedModel, batch: Batch) -> Tensor:
    """Last hidden states of the real tokens of the stack that the unembedding reads."""
    kept: list[Tensor] = []
    place = Place(loaded.anatomy.output_stack.layers[-1].module, "output")
    with torch.inference_mode(), tapped({0: place}, lambda _, x: kept.append(x.clone())):
        forward(loaded, batch, head=False)
    state = by_prompt(kept[0], batch.output_mask)
    return state[batch.output_mask.bool().to(state.device)]


def _single(
    run: ForwardPass,
    loaded: LoadedModel,
    plan: CapturePlan,
    prompts: Sequence[Prompt],
    encoded: Sequence[Encoded],
    together: BatchRows,
) -> float:
    alone = [run_batch(run, loaded, plan, [p], [e]) for p, e in zip(prompts, encoded, strict=True)]
    # Experts of nearly equal weight change places with the last bit; what they add up to does not.
    compared = [key for key in together.values if key[0].rpartition("moe.")[2] not in ("expert", "neurons")]
    return max(
        (_defined_error(torch.cat([r.values[key] for r in alone], dim=1), together.values[key]) for key in compared),
        default=0.0,
    )


def _defined_error(found: Tensor, expected: Tensor) -> float:
    """Error of rows in which NaN stands for what is undefined, such as scores of unseen keys; both must say so."""
    undefined = found.isnan() & expected.isnan()
    return typical_error(found.masked_fill(undefined, 0), expected.masked_fill(undefined, 0))


def _masked(loaded: LoadedModel, batch: Batch) -> float:
    """Error of real tokens when eight more columns of padding hold another id."""
    plain = _body_output(loaded, batch)
    other = int(batch.ids[0, 0])
    more = batch.ids.new_full((len(batch), 8), other)
    disturbed = replace(
        batch,
        ids=torch.cat([torch.where(batch.mask.bool(), batch.ids, other), more], dim=1),
        mask=torch.cat([batch.mask, torch.zeros_like(more)], dim=1),
    )
    return typical_error(_body_output(loaded, disturbed), plain)


def _unchanged(
    run: ForwardPass,
    loaded: LoadedModel,
    plan: CapturePlan,
    prompts: Sequence[Prompt],
    encoded: Sequence[Encoded],
    bare: Tensor,
    batch: Batch,
) -> float:
    """Error of the body's output while and after capturing; with answers, of the last logits as well."""
    error = typical_error(_body_output(loaded, batch), bare)
    if plan.answers:
        with torch.inference_mode():
            full = forward(loaded, batch, head=True).logits
            rows = torch.arange(len(batch), device=full.device)
            expected = full[rows, (batch.output_mask.sum(1) - 1).to(full.device)]
        captured = run_batch(run, loaded, plan, prompts, encoded, logits=True).passed.logits
        assert captured is not None
        error = max(error, typical_error(captured, expected))
    return error


def _adapter(loaded: LoadedModel, batch: Batch, bare: Tensor) -> float:
    """How much the last hidden states change when the adapter is disabled; the logits where it adapts the head alone.

    Raises
    ------
    BabelScopeError
        If nothing changes.
    """
    with disabled(loaded.switch):
        change = typical_error(_body_output(loaded, batch), bare)
    if change:
        return change
    with torch.inference_mode():
        adapted = forward(loaded, batch, head=True)[0]
        with disabled(loaded.switch):
            change = typical_error(forward(loaded, batch, head=True)[0], adapted)
    if not change:
        raise BabelScopeError(
            f"self-test: the adapter {loaded.ref.adapter} changes nothing in {loaded.anatomy.name}",
            "train it first, or leave it out",
        )
    return change


def _hidden_states(loaded: LoadedModel, batch: Batch) -> float:
    """Error of block inputs and of the last output against `output_hidden_states`, over all stacks."""
    anatomy, seen = loaded.anatomy, dict[tuple[str, int], Tensor]()
    places: dict[tuple[str, int], Place] = {}
    for tag, stack in anatomy.stacks.items():
        places |= {(tag, i): Place(layer.module, "input") for i, layer in enumerate(stack.layers)}
        places[tag, len(stack.layers)] = Place(stack.layers[-1].module, "output")
    with torch.inference_mode(), tapped(places, lambda key, x: seen.update({key: x.clone()})):
        output = forward(loaded, batch, head=False, output_hidden_states=True)
    return max(_state_error(stack, output, seen, batch) for stack in anatomy.stacks.values())


def _state_error(stack: Stack, output: Any, seen: Mapping[tuple[str, int], Tensor], batch: Batch) -> float:
    field = {"": "hidden_states", "enc": "encoder_hidden_states", "dec": "decoder_hidden_states"}[stack.tag]
    states, n = getattr(output, field, None), len(stack.layers)
    if states is None or len(states) != n + 1:
        return 0.0  # a model without hidden states of its own: the laws have to suffice
    ours = [seen[stack.tag, i] for i in range(n + 1)]
    if stack.final_norm is not None:
        # The model's last hidden state is taken after the final norm, so it is not resid.post.
        with torch.inference_mode():
            ours[n] = stack.final_norm.forward(ours[n])
    real = batch.mask_of(stack.tag).bool()
    return max(
        largest_error(x[real.to(x.device)], state[real.to(state.device)]) for x, state in zip(ours, states, strict=True)
    )
