"""Seconds of doubt before hours of capture: whether this model, here, gives what its sites promise."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks.backends.torch import forward
from babelscope.hooks.capture import BatchRows, ForwardPass, Keep, Passed, run_batch
from babelscope.hooks.context import context_length
from babelscope.hooks.languages import token_languages
from babelscope.hooks.laws import check_laws
from babelscope.hooks.leftovers import configurations, count_hooks, own_forwards
from babelscope.hooks.levers import at_last
from babelscope.hooks.memory import enough_memory
from babelscope.hooks.model_checks import (
    Block,
    adapter_effect,
    at_real_tokens,
    block_outputs,
    body_output,
    hidden_states_error,
    last_block,
    returned,
)
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.place import by_prompt, tapped
from babelscope.hooks.rows import Item, usable
from babelscope.hooks.tokens import Batch, make_batch
from babelscope.hooks.tolerance import LAW, PASS, typical_error
from babelscope.schema import CapturePlan, PromptSet, Site

MAX_PROMPTS = 4
FURTHER_PADDING = 8


@enough_memory(
    "the self-test, which reads up to four prompts together",
    "name a smaller --dtype or a device with more memory; --no-self-test goes on without",
)
def self_test(loaded: LoadedModel, prompts: PromptSet, plan: CapturePlan) -> dict[str, float]:
    """Check a plan on at most four of its prompts, one per language as far as possible.

    The laws; that what lies under the mask does not matter; rows and logits alone and in a batch; that capturing
    leaves the model's output as it is; block inputs and outputs against the model's own hidden states; that an
    adapter does something; that nothing is left behind in the model.

    Returns
    -------
    dict
        Name of the check -> error found; a check that had nothing to compare is absent, such as that of hidden states
        where a model returns none. Laws and hidden states are measured by the largest error relative to the largest
        value, whole passes by the relative norm of the difference (see `tolerance`).

    Raises
    ------
    BabelScopeError
        Naming the first check that fails.
    """
    items = _sample(loaded, prompts, plan)
    batch = make_batch(loaded, [x.encoded for x in items], [x.decoder for x in items if x.decoder] or None)
    languages = token_languages(loaded.model, [x.prompt for x in items], [x.encoded for x in items], loaded.device)
    batch = replace(batch, languages=languages)
    hooks, configured = count_hooks(loaded.model), configurations(loaded.model)
    bare = body_output(loaded, batch)
    found = {f"law of {site}": error for site, error in check_laws(loaded.anatomy, batch, plan.sites).items()}
    run: ForwardPass = plugins.load("backend", plan.backend).open(loaded, plan)
    replaced = own_forwards(loaded.model)  # after nnsight, which wraps a model for good when it is opened
    with _watching(loaded) as seen:
        together = _run(run, loaded, plan, items)
    checks = {
        "mask is honored": _masked(run, loaded, plan, items, together),
        "single equals batched": _single(run, loaded, plan, items, together),
        "output unchanged by capturing": _unchanged(loaded, plan, batch, bare, seen, together),
    }
    left = count_hooks(loaded.model) - hooks
    changed = [f"{left} hooks"] if left else []
    changed += ["another configuration"] if configurations(loaded.model) != configured else []
    changed += ["functions in place of `forward`"] if own_forwards(loaded.model) != replaced else []
    if changed:
        raise BabelScopeError(
            f"self-test: a capture leaves something behind in {loaded.anatomy.name}: {', '.join(changed)}",
            "report this model",
        )
    if loaded.switch is not None:
        found["adapter active"] = adapter_effect(loaded, batch, bare)
    # Last, because asking for hidden states makes transformers install hooks of its own, which stay.
    checks["equals the model's hidden states"] = hidden_states_error(loaded, batch)
    measured = {name: error for name, error in checks.items() if error is not None}
    for name, error in measured.items():
        limits = LAW if "hidden" in name else PASS
        tolerance = max(limits[loaded.model.dtype], limits[DTYPES[plan.row_dtype]])
        if not error <= tolerance:
            raise BabelScopeError(
                f"self-test of {loaded.anatomy.name} failed: {name}: "
                f"error {error:.1e}, at most {tolerance:.2g} expected",
                "try --dtype float32 or --attention eager; --no-self-test goes on regardless",
            )
    levers = {f"lever {name}": error for name, error in getattr(run, "lever_errors", {}).items()}
    return {**found, **measured, **levers, "hooks left behind": float(left)}


def _sample(loaded: LoadedModel, prompts: PromptSet, plan: CapturePlan) -> list[Item]:
    """The first usable prompt of each of the first languages, then further prompts; four in all."""
    firsts = [prompts.of(language)[0] for language in prompts.languages[:MAX_PROMPTS]]
    queue = [*firsts, *(p for p in prompts.prompts[: 16 * MAX_PROMPTS] if p not in firsts)]
    items, failed = usable(plan, loaded, dict(enumerate(queue)))
    if not items:
        unread = plan.decoder not in ("", "copy") and any(site.row_stack == "dec" for site in plan.sites)
        raise BabelScopeError(
            f"self-test: the positions {', '.join(map(str, plan.positions))} pick nothing in the first prompts: "
            f"{next(iter(failed.values()))}",
            f"the decoder reads no text with --decoder {plan.decoder}: give --decoder copy, or --position last"
            if unread
            else "check that the prompts have the segments that the positions name",
        )
    return items[:MAX_PROMPTS]


def _run(run: ForwardPass, loaded: LoadedModel, plan: CapturePlan, items: Sequence[Item]) -> BatchRows:
    """These prompts as one batch, as the capture runs them."""
    prompts, encoded = [x.prompt for x in items], [x.encoded for x in items]
    return run_batch(run, loaded, plan, prompts, encoded, logits=bool(plan.answers))


@contextmanager
def _watching(loaded: LoadedModel) -> Iterator[dict[Block, Tensor]]:
    """What the last block of the model that runs inside returned; not a copy, since a listener may change it later.

    Empty where a backend runs a model of its own.
    """
    seen: dict[Block, Tensor] = {}

    def keep(block: Block, x: Tensor) -> None:
        seen.clear()
        seen[block] = x

    with tapped(block_outputs(loaded), keep):
        yield seen


def _single(
    run: ForwardPass, loaded: LoadedModel, plan: CapturePlan, items: Sequence[Item], together: BatchRows
) -> float | None:
    alone = [_run(run, loaded, plan, [item]) for item in items]
    values = {key: torch.cat([rows.values[key] for rows in alone], dim=1) for key in together.values}
    logits = [rows.passed.logits for rows in alone if rows.passed.logits is not None]
    return _difference(BatchRows(values, Passed(torch.cat(logits) if logits else None)), together)


def _difference(found: BatchRows, expected: BatchRows) -> float | None:
    """Largest error of rows and logits; None if nothing in them has to be the same."""
    # Experts of nearly equal weight change places with the last bit; what they add up to does not.
    compared = [key for key in expected.values if key[0].rpartition("moe.")[2] not in ("expert", "neurons")]
    errors = [_defined_error(found.values[key], expected.values[key]) for key in compared]
    if found.passed.logits is not None and expected.passed.logits is not None:
        errors.append(typical_error(found.passed.logits, expected.passed.logits))
    return max(errors, default=None)


def _defined_error(found: Tensor, expected: Tensor) -> float:
    """Error of rows in which NaN stands for what is undefined, such as scores of unseen keys; both must say so."""
    undefined = found.isnan() & expected.isnan()
    return typical_error(found.masked_fill(undefined, 0), expected.masked_fill(undefined, 0))


def _masked(
    run: ForwardPass, loaded: LoadedModel, plan: CapturePlan, items: Sequence[Item], together: BatchRows
) -> float | None:
    """Error of rows and logits when further columns of padding, and those there are, hold another id."""
    limits = [context_length(loaded, tag)[0] for tag in loaded.anatomy.stacks]
    limit = min((n for n in limits if n is not None), default=None)

    def disturbed(batch: Batch, keep: Keep, *, logits: bool, laws: bool) -> Passed:
        longest = max(x.shape[1] for x in (batch.ids, batch.output_mask))
        more = FURTHER_PADDING if limit is None else max(0, min(FURTHER_PADDING, limit - longest))
        wider = _padded_further(batch, more)

        def cut(site: Site, x: Tensor) -> None:
            if x.shape[:2] != (len(batch), 1):  # the last tokens alone, by a lever
                x = by_prompt(x, wider.mask_of(site.row_stack))[:, : batch.mask_of(site.row_stack).shape[1]]
            keep(site, x[..., : batch.key_mask(site).shape[1]] if "key" in site.axes else x)

        return run(wider, cut, logits=logits, laws=laws)

    return _difference(_run(disturbed, loaded, plan, items), together)


def _padded_further(batch: Batch, more: int) -> Batch:
    """The same prompts with more columns of padding, all of it another id than before."""

    def wider(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        other = ids[0, 0]
        return functional.pad(ids.where(mask.bool(), other), (0, more), value=int(other)), functional.pad(
            mask, (0, more)
        )

    segments = {tag: functional.pad(x, (0, 0, 0, more)) for tag, x in batch.segments.items()}
    languages = None if batch.languages is None else functional.pad(batch.languages, (0, more))
    if batch.decoder_ids is None or batch.decoder_mask is None:
        return Batch(*wider(batch.ids, batch.mask), segments=segments, languages=languages)
    decoder = wider(batch.decoder_ids, batch.decoder_mask)
    return Batch(*wider(batch.ids, batch.mask), *decoder, segments)


def _unchanged(
    loaded: LoadedModel,
    plan: CapturePlan,
    batch: Batch,
    bare: Tensor,
    seen: Mapping[Block, Tensor],
    captured: BatchRows,
) -> float:
    """Error of the body's output after capturing, of the last block that ran while capturing, and of the logits.

    The last block comes after the one whose output is asked for here, or is that one, so it tells of all of them.
    """
    last = last_block(loaded)
    plain = returned(loaded, batch, last, *seen)
    errors = [typical_error(at_real_tokens(plain[last], batch.output_mask), bare)]
    # Levers leave all but the last token undefined.
    rows = at_last if plan.levers else at_real_tokens
    for block, x in seen.items():
        mask = batch.mask_of(block[0])
        errors.append(typical_error(rows(x, mask), rows(plain[block], mask)))
    if captured.passed.logits is not None:
        with torch.inference_mode():
            full = forward(loaded, batch, head=True).logits
            expected = at_last(full, batch.output_mask)
        errors.append(typical_error(captured.passed.logits, expected))
    return max(errors)
