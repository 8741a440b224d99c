"""`babelscope capture`: prompts through a model into a store."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import Languages, Limit, Mapping, Overwrite, Prompts, Sites, split_codes
from babelscope.cli.progress import bar, note


def run(
    out: Annotated[Path, typer.Argument(help="Store folder to write, as run.acts.")],
    model: Annotated[str, typer.Option(help="Local folder, hub id, or embedded model (cli.py ls models).")],
    prompts: Prompts = None,
    languages: Languages = None,
    site: Sites = None,
    position: Annotated[
        list[str] | None, typer.Option(help="last, first, mean, all or segment:NAME. Repeatable.")
    ] = None,
    mapping: Mapping = None,
    limit: Limit = None,
    answers: Annotated[bool, typer.Option(help="Keep option scores, choice and correctness.")] = True,
    texts: Annotated[bool, typer.Option(help="Keep prompt texts in the store.")] = True,
    backend: Annotated[str, typer.Option(help="cli.py ls backends.")] = "torch",
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    decoder: Annotated[
        str, typer.Option(help="What a decoder beside an encoder reads: start, language or copy.")
    ] = "start",
    block_items: Annotated[int, typer.Option(min=1, help="Items per shard.")] = 64,
    self_test: Annotated[bool, typer.Option(help="Check the sites of this model on a few prompts first.")] = True,
    lever: Annotated[
        list[str] | None,
        typer.Option(help="Ways to save time: unmasked, pruned, prefixes. Repeatable. Default: all; none for none."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted capture.")] = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the estimate and write nothing.")] = False,
) -> None:
    """Record the activations of MODEL over parallel PROMPTS into the store OUT."""
    with bar() as progress:
        done = workflows.capture(
            out, model=model, prompts=prompts or [], sites=site or ("resid.post", "mlp.act"),
            positions=position or ("last",), languages=split_codes(languages), limit=limit, mapping=mapping,
            answers=answers, backend=backend, revision=revision, dtype=dtype, device=device, decoder=decoder,
            block_items=block_items,
            texts=texts, resume=resume, overwrite=overwrite, dry_run=dry_run,
            self_test=self_test, levers=[] if lever == ["none"] else lever, progress=progress, note=note,
        )  # fmt: skip
    print("\n".join(done.lines()) if isinstance(done, workflows.Estimate) else done)
