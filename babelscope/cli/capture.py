"""`babelscope capture`: prompts through a model into a store."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli import completion
from babelscope.cli.options import (
    Adapter,
    Anatomy,
    AsJson,
    Attention,
    Device,
    DeviceMap,
    Dtype,
    Languages,
    Limit,
    Mapping,
    MergeAdapter,
    Overwrite,
    Prompts,
    Quantize,
    Revision,
    Sites,
    TrustRemoteCode,
    split_codes,
)
from babelscope.cli.printing import show
from babelscope.cli.progress import bar, note


def run(
    out: Annotated[Path, typer.Argument(help="Store folder to write, as run.acts.")],
    model: Annotated[
        str, typer.Option(help="Folder, hub id or embedded (cli.py ls models).", autocompletion=completion.models)
    ],
    prompts: Prompts = None,
    languages: Languages = None,
    site: Sites = None,
    position: Annotated[
        list[str] | None,
        typer.Option(help="As mean (cli.py ls positions). Default: last.", autocompletion=completion.positions),
    ] = None,
    mapping: Mapping = None,
    limit: Limit = None,
    answers: Annotated[
        str,
        typer.Option(
            help="none, labels, or texts (option texts, too).",
            autocompletion=completion.one_of("none", "labels", "texts"),
        ),
    ] = "labels",
    continuation: Annotated[int, typer.Option("--continue", min=0, help="Let the model write so many tokens.")] = 0,
    texts: Annotated[bool, typer.Option(help="Keep prompt texts in the store.")] = True,
    backend: Annotated[
        str, typer.Option(help="cli.py ls backends.", autocompletion=completion.plugin("backend"))
    ] = "torch",
    revision: Revision = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    attention: Attention = None,
    adapter: Adapter = None,
    merge_adapter: MergeAdapter = False,
    trust_remote_code: TrustRemoteCode = False,
    anatomy: Anatomy = None,
    chat_template: Annotated[bool, typer.Option("--chat-template", help="Wrap prompts as what a user says.")] = False,
    decoder: Annotated[
        str,
        typer.Option(
            help="A seq2seq decoder reads: start, language, copy.",
            autocompletion=completion.one_of("start", "language", "copy"),
        ),
    ] = "start",
    store_dtype: Annotated[
        str,
        typer.Option(
            help="auto (as the model), float32, float16, bfloat16, int8.",
            show_default=False,
            autocompletion=completion.one_of("auto", "float32", "float16", "bfloat16", "int8"),
        ),
    ] = "auto",
    on_overflow: Annotated[
        str,
        typer.Option(
            help="Beyond float16: stop, or clip and mark the item.", autocompletion=completion.one_of("stop", "clip")
        ),
    ] = "stop",
    block_items: Annotated[
        int | None, typer.Option(min=1, help="Items per shard. Default: as 96 MB hold, 16 to 4096.")
    ] = None,
    self_test: Annotated[bool, typer.Option(help="Check the sites on a few prompts first.")] = True,
    part: Annotated[str | None, typer.Option(metavar="K/N", help="As 3/8: this share of the blocks alone.")] = None,
    lever: Annotated[
        list[str] | None,
        typer.Option(
            help="unmasked, pruned, prefixes, or none. Default: all.",
            autocompletion=completion.one_of("unmasked", "pruned", "prefixes", "none"),
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted capture.")] = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the estimate and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Record the activations of a model over parallel prompts."""
    share = workflows.part_of(part)
    with bar(hidden=workflows.is_silent()) as progress:
        done = workflows.capture(
            out, model=model, prompts=prompts or [], sites=site or ("resid.post", "mlp.act"),
            positions=position or ("last",), languages=split_codes(languages), limit=limit, mapping=mapping,
            answers=answers, continuation=continuation, backend=backend, revision=revision, dtype=dtype, device=device,
            device_map=device_map, quantize=quantize, attn_implementation=attention, adapter=adapter,
            merge_adapter=merge_adapter, trust_remote_code=trust_remote_code, anatomy=anatomy,
            chat_template=chat_template, decoder=decoder, store_dtype=store_dtype, on_overflow=on_overflow,
            block_items=block_items, texts=texts, part=part,
            resume=resume, overwrite=overwrite, dry_run=dry_run,
            self_test=self_test, levers=[] if lever == ["none"] else lever, progress=progress,
            note=(lambda _: None) if workflows.is_silent() else note,
        )  # fmt: skip
    if isinstance(done, workflows.Estimate) or share.whole:
        show(done, done, as_json=as_json)
    else:  # in one write: the lines of other parts come on the same terminal
        finished, planned = done.progress
        said = {"part": str(share), "store": out, "shards": {"committed": finished, "planned": planned}}
        show(f"part {share} done: {out} holds {finished} of {planned} shards", said, as_json=as_json)
