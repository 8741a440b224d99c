"""Options that several commands share, and the parsing of comma-separated lists."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from babelscope.errors import BabelScopeError

Languages: TypeAlias = Annotated[
    str | None, typer.Option("--languages", help="Comma-separated codes, as en,de,sw. Default: all.")
]
Sites: TypeAlias = Annotated[
    list[str] | None, typer.Option("--site", help="Site with optional layers, as resid.post or mlp.act@3. Repeatable.")
]
Prompts: TypeAlias = Annotated[
    list[str] | None, typer.Option("--prompts", help="Generated dataset (cli.py data ls) or file. Repeatable.")
]
Mapping: TypeAlias = Annotated[
    str | None, typer.Option("--mapping", help="YAML file, or name of a bundled one, that says what the columns mean.")
]
Limit: TypeAlias = Annotated[int | None, typer.Option("--limit", min=1, help="First items of each prompt source.")]
Sweep: TypeAlias = Annotated[
    list[str] | None, typer.Option("--sweep", help="Grid of a parameter, as threshold=0.1:0.9:0.05. Repeatable.")
]
Metrics: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--metric", help="cli.py ls metrics. Repeatable. Default: cs and nao, as sites allow."),
]
Recipes: TypeAlias = Annotated[
    list[str] | None, typer.Option("--recipe", help="cli.py ls recipes. Repeatable; then metrics are those named.")
]
Settings: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", help="Parameter of a recipe, as top=50. Repeatable.")
]
ReadPosition: TypeAlias = Annotated[str | None, typer.Option("--position", help="Stored position to read.")]
By: TypeAlias = Annotated[str, typer.Option("--by", help="Item covariate that forms groups; auto or none.")]
Within: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--within", help="Item covariate, as rule or gold: restricts the null to items that share it. Repeatable."
    ),
]
Mode: TypeAlias = Annotated[Literal["corrected", "paper", "both"], typer.Option(help="Definitions to compute.")]
Marked: TypeAlias = Annotated[
    Literal["refuse", "drop", "keep"], typer.Option(help="Items with values that were clipped or are not finite.")
]
Seed: TypeAlias = Annotated[int, typer.Option(min=0, help="Seed of permutations and bootstraps.")]
Jobs: TypeAlias = Annotated[int, typer.Option(min=1, help="Workers; the numbers do not depend on it.")]
# How a model is loaded: the same in every command that loads one.
Revision: TypeAlias = Annotated[str | None, typer.Option("--revision", help="Revision of a hub id.")]
Dtype: TypeAlias = Annotated[str, typer.Option("--dtype", help="auto, float32, float16 or bfloat16.")]
Device: TypeAlias = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
DeviceMap: TypeAlias = Annotated[
    str | None,
    typer.Option("--device-map", help="auto, or a JSON file of module -> device, cpu or disk: spread the weights."),
]
Quantize: TypeAlias = Annotated[str | None, typer.Option("--quantize", help="nf4 or int8, by bitsandbytes, on a GPU.")]
Attention: TypeAlias = Annotated[
    str | None, typer.Option("--attention", help="How attention is computed: eager, sdpa, or a name of transformers.")
]
Adapter: TypeAlias = Annotated[str | None, typer.Option("--adapter", help="Folder or hub id of a PEFT adapter.")]
MergeAdapter: TypeAlias = Annotated[bool, typer.Option("--merge-adapter", help="Add the adapter to the weights.")]
TrustRemoteCode: TypeAlias = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python files that come with the model.")
]
Anatomy: TypeAlias = Annotated[
    Path | None, typer.Option("--anatomy", help="YAML file that names parts which are not located (docs/anatomy.md).")
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")]
Store: TypeAlias = Annotated[Path, typer.Argument(help="Store, as run.acts, or a packed one.")]


def split_codes(text: str | None) -> list[str] | None:
    """Codes of a comma-separated list; None stays None."""
    if text is None:
        return None
    codes = [code.strip() for code in text.split(",") if code.strip()]
    if not codes:
        raise BabelScopeError("--languages names no language", "write --languages en,de,sw")
    return codes


def sweep_grids(texts: Sequence[str] | None) -> dict[str, tuple[float, ...]] | None:
    """Grids of `--sweep` options by parameter; None without any."""
    from babelscope.analyses.grid import parse_sweep

    if not texts:
        return None
    grids = [parse_sweep(text) for text in texts]
    repeated = [name for name, _ in grids if [n for n, _ in grids].count(name) > 1]
    if repeated:
        raise BabelScopeError(
            f"--sweep names {repeated[0]} more than once", f"write one grid, as {repeated[0]}=0.1:0.9:0.05"
        )
    return dict(grids)


def settings_of(texts: Sequence[str] | None) -> dict[str, str]:
    """Values of `--set` options by parameter.

    Raises
    ------
    BabelScopeError
        For a text that is no `name=value`.
    """
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise BabelScopeError(f"--set {text!r} is not a parameter and its value", "write --set top=50")
        found[name.strip()] = value.strip()
    return found


def beside(store: Path, ending: str) -> Path:
    """The default output beside a store: `run.acts` gives `run.acts.analysis`."""
    named = store if store.name not in ("", "..") else store.resolve()
    return named.with_name(f"{named.name}.{ending}")
