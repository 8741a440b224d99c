"""The verb `capture`: prompts through a model into a store."""

import os
import platform
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelscope import plugins
from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.manifest import is_store
from babelscope.errors import BabelScopeError
from babelscope.schema import LEVERS, Block, CapturePlan, PromptSet
from babelscope.workflows.estimates import Estimate, estimated
from babelscope.workflows.model_folders import model_path
from babelscope.workflows.parts import Part, part_of
from babelscope.workflows.prompts import AnyMapping, prompts_of
from babelscope.workflows.signals import Note, Progress, stop_requested

if TYPE_CHECKING:
    from babelscope.hooks import LoadedModel

# Blocks that are captured and not yet written.
QUEUE = 2


class CaptureStoppedError(BabelScopeError):
    """The user asked a capture to stop; the finished blocks are kept."""


def capture(
    out: str | Path,
    *,
    model: "str | LoadedModel",
    prompts: str | Path | PromptSet | Sequence[str | Path | PromptSet],
    sites: Sequence[str] = ("resid.post", "mlp.act"),
    positions: Sequence[str] = ("last",),
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    mapping: AnyMapping = None,
    answers: str = "labels",
    continuation: int = 0,
    backend: str = "torch",
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | Path | None = None,
    quantize: str | None = None,
    attn_implementation: str | None = None,
    adapter: str | None = None,
    merge_adapter: bool = False,
    trust_remote_code: bool = False,
    anatomy: str | Path | None = None,
    chat_template: bool = False,
    decoder: str = "start",
    store_dtype: str = "auto",
    on_overflow: str = "stop",
    block_items: int | None = None,
    texts: bool = True,
    part: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    self_test: bool = True,
    levers: Sequence[str] | None = None,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> "ActivationStore | Estimate":
    """Run prompts through a model and keep the activations of the named sites.

    Parameters
    ----------
    out : path
        Store folder, by custom `NAME.acts`. Must not exist, unless `resume` or `overwrite`.
    model : str or LoadedModel
        Local folder, hub id, or name of an embedded model; or one that is in memory (`hooks.as_loaded`), for which
        the options of loading count for nothing.
    prompts : str, PromptSet or sequence of these
        Names of generated datasets, files, or prompt sets.
    sites, positions : sequence of str
        As `resid.post`, `mlp.act@3`, `mlp.act@2:6`; as `last`, `mean`, `segment:question`.
    languages : sequence of str, optional
        Only these, in this order. Default: all that the prompts have.
    limit : int, optional
        First items of each source.
    mapping : optional
        What the columns of prompt files mean.
    answers : str
        How the model answers prompts that have options: none, labels, or texts (labels and option texts).
    continuation : int
        Let the model continue each prompt by at most so many tokens, greedily.
    backend, revision, dtype, device : str
        What runs the model, which revision of a hub id, in which precision, where.
    device_map, quantize, attn_implementation, adapter, merge_adapter, trust_remote_code, anatomy : optional
        As in `hooks.load_model`.
    chat_template : bool
        Wrap each prompt as the model was trained to read what a user says.
    decoder : str
        What the decoder of an encoder-decoder reads: start, language or copy.
    store_dtype : str
        auto (that of the model), float32, float16, bfloat16, or int8 with a scale for each unit of a shard.
    on_overflow : str
        What happens where a value does not fit float16: stop, or clip it and mark the item.
    block_items : int, optional
        Items per shard, the unit of resuming. Default: what the store has that is continued; else as many as make a
        shard of 96 MB, 16 to 4096.
    texts : bool
        Keep prompt texts in the store.
    part : str, optional
        As `3/8`: capture this share of the blocks, into a store that the others fill as well. Under `torchrun`
        each process takes its own.
    resume : bool
        Continue an interrupted capture of the same plan; one that has not begun is begun.
    overwrite : bool
        Replace an existing store.
    dry_run : bool
        Estimate only; nothing is written.
    self_test : bool
        Check sites, batching and masks of this model on a few prompts first.
    levers : sequence of str, optional
        Keys of `LEVERS` that may save time; every one of them by default, none of them with an empty sequence.
    progress, note : callable, optional
        Called with (blocks done, blocks in all, what), and with lines for a log.

    Returns
    -------
    ActivationStore, or Estimate for a dry run

    Raises
    ------
    BabelScopeError
        For anything the user can fix; nothing half-written is left behind.
    """
    path = Path(out).expanduser()
    share = part_of(part) if isinstance(model, str) else Part()  # one process of a training holds the model
    if overwrite and not share.whole:
        raise BabelScopeError(
            f"part {share} cannot replace {path}, which the other parts fill as well",
            "remove the store before the parts are started, and leave --overwrite out",
        )
    resume = resume or not share.whole  # whichever part comes first makes the store
    _check_target(path, resume=resume, overwrite=overwrite, dry_run=dry_run)
    prompt_set, notes = prompts_of(prompts, languages=languages, limit=limit, mapping=mapping)
    for text in notes:
        note(text)

    from babelscope import hooks  # torch is imported here and not before

    plugins.load("backend", backend)  # an unknown name is told before a model is loaded
    begun_as = ActivationStore.open(path).plan if resume and is_store(path) else None
    loaded = model if isinstance(model, hooks.LoadedModel) else hooks.load_model(
        model_path(model), revision=revision, dtype=dtype, device=device, device_map=device_map, quantize=quantize,
        adapter=adapter, merge_adapter=merge_adapter, attn_implementation=attn_implementation, anatomy=anatomy,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    for text in loaded.notes:
        note(text)
    if isinstance(model, str):
        loaded = replace(loaded, ref=replace(loaded.ref, source=model))
    if chat_template:
        loaded, prompt_set = hooks.as_chat(loaded, prompt_set)
    plan = hooks.make_plan(
        loaded, prompt_set, sites=sites, positions=positions, answers=answers, backend=backend,
        block_items=block_items or (begun_as.block_items if begun_as else 1),
        decoder=decoder, continuation=continuation,
        levers=tuple(LEVERS) if levers is None else levers,
        dtype=None if store_dtype == "auto" else store_dtype, on_overflow=on_overflow,
    )  # fmt: skip
    estimate = estimated(path, plan, loaded, prompt_set, begun_as, resized=block_items is None and begun_as is None)
    plan = estimate.plan
    if dry_run:
        return estimate
    estimate.check_memory()
    # What a resumed capture holds already is checked against the plan before any room is asked for.
    about = _provenance(plan, loaded, prompt_set, trust_remote_code=trust_remote_code)
    begun = StoreWriter.resume(path, plan, prompt_set, about) if resume and path.exists() else None
    estimate.check_room(path, 1.0 if begun is None else len(begun.pending()) / len(plan.blocks))
    about["self_test"] = hooks.self_test(loaded, prompt_set, plan) if self_test else {}
    # Before there is a store, since the backend may refuse a site; which blocks are left is known only after joining.
    pending: list[tuple[str, int]] = []
    blocks = hooks.run_plan(plan, loaded, prompt_set, pending, note)
    if begun is None and not share.whole:
        begun = StoreWriter.join(path, plan, prompt_set, about, texts=texts)
    writer = begun or StoreWriter.create(path, plan, prompt_set, about, texts=texts, overwrite=overwrite)
    for text in writer.quarantined:
        note(f"{text}; its items are captured again")
    with writer:
        mine = {block for pool in share.of(plan.pools) for block in pool}
        pending += [block for block in writer.pending() if block in mine]
        _fill(writer, blocks, len(mine), len(pending), progress)
    writer.seal(lambda done, total, name: progress(done, total, f"sha256 {name}") if progress else None)
    return ActivationStore.open(path)


def _check_target(path: Path, *, resume: bool, overwrite: bool, dry_run: bool) -> None:
    """Refuse, before a model is loaded, what the writer would refuse after it."""
    if resume and overwrite:
        raise BabelScopeError("--resume and --overwrite contradict each other", "give one of them")
    if dry_run:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise BabelScopeError(f"{folder} is no folder, so {path.name} cannot be written there", "make it first")
    if not os.path.lexists(path):
        if not os.access(folder, os.W_OK):
            raise BabelScopeError(f"{folder} cannot be written", "check its permissions, or name another folder")
        return
    if not (resume or overwrite):
        raise BabelScopeError(f"{path} exists already", "add --resume to continue it or --overwrite to replace it")
    if resume:
        ActivationStore.open(path)
    elif not path.is_dir() or (any(path.iterdir()) and not is_store(path)):
        raise BabelScopeError(f"{path} exists and is no store, so it is not replaced", "name another path")


def _fill(writer: StoreWriter, blocks: Iterator[Block], total: int, pending: int, progress: Progress | None) -> None:
    """Write blocks on a thread of their own, so that hashing and fsync overlap with the next forward passes.

    Whatever ends the loop, the blocks that wait are still written: leaving the executor waits for them.
    """
    done = total - pending
    waiting: deque[tuple[str, Future[None]]] = deque()

    def settle(at_most: int) -> None:
        nonlocal done
        while waiting and (len(waiting) > at_most or waiting[0][1].done()):
            language, future = waiting.popleft()
            future.result()  # raises what went wrong in writing
            done += 1
            if progress:
                progress(done, total, f"capture {language}")

    with stop_requested() as stopped, ThreadPoolExecutor(1, "writer") as thread:
        for block in blocks:
            waiting.append((block.language, thread.submit(writer.put, block)))
            settle(at_most=QUEUE)
            if stopped():
                settle(at_most=0)
            if stopped() and done < total:
                raise CaptureStoppedError(
                    f"{writer.path}: stopped after {done} of {total} blocks; everything up to there is kept",
                    "run the same command with --resume to continue",
                    128 + stopped(),
                )
        settle(at_most=0)


def _provenance(
    plan: CapturePlan, loaded: "LoadedModel", prompts: PromptSet, *, trust_remote_code: bool
) -> dict[str, Any]:
    from babelscope.hooks import device_name

    # Those that this capture uses, whatever else the process has imported: they stand in every shard.
    packages = ["babelscope", "torch", "transformers", "h5py", "numpy"]
    packages += [p for p in ("transformer-lens", "nnsight") if plan.backend.removesuffix("-remote") == p]
    packages += ["peft"] if loaded.ref.adapter else []
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {p: version(p) for p in packages},
        "device": device_name(loaded.device),
        "device_map": getattr(loaded.model, "hf_device_map", None),
        "model": loaded.ref.source,
        "adapter": loaded.ref.adapter,
        "model_notes": list(loaded.notes),
        "trust_remote_code": trust_remote_code,
        "prompts": {"name": prompts.name, "source": prompts.source},
    }
