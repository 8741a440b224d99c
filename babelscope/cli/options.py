"""Options that several commands share, and the parsing of comma-separated lists."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from babelscope.cli import completion
from babelscope.errors import BabelScopeError

Languages: TypeAlias = Annotated[
    str | None, typer.Option("--languages", metavar="CODES", help="Comma-separated, as en,de,sw. Default: all.")
]
Sites: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--site", metavar="SITE", help="As resid.post or mlp.act@3,4.", autocompletion=completion.sites),
]
Prompts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--prompts", help="Dataset (cli.py data ls) or file.", autocompletion=completion.plugin("dataset")),
]
Mapping: TypeAlias = Annotated[
    str | None,
    typer.Option("--mapping", help="Meaning of columns: YAML file, or bundled.", autocompletion=completion.mappings),
]
Limit: TypeAlias = Annotated[int | None, typer.Option("--limit", min=1, help="First items of each prompt source.")]
Sweep: TypeAlias = Annotated[
    list[str] | None, typer.Option("--sweep", metavar="GRID", help="As threshold=0.1:0.9:0.05.")
]
Metrics: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", help="cli.py ls metrics. Default: cs and nao.", autocompletion=completion.plugin("metric")
    ),
]
Recipes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--recipe", help="cli.py ls recipes. Alone: no metrics.", autocompletion=completion.plugin("recipe")),
]
Settings: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=X", help="Parameter of a recipe, as top=50.")
]
ReadPosition: TypeAlias = Annotated[
    str | None, typer.Option("--position", help="Stored position to read.", autocompletion=completion.positions)
]
By: TypeAlias = Annotated[str, typer.Option("--by", help="Item covariate of groups; auto or none.")]
Within: TypeAlias = Annotated[
    list[str] | None, typer.Option("--within", help="Null: only items that share this covariate.")
]
Mode: TypeAlias = Annotated[Literal["corrected", "paper", "both"], typer.Option(help="Definitions to compute.")]
Marked: TypeAlias = Annotated[
    Literal["refuse", "drop", "keep"], typer.Option(help="Items with clipped, NaN or infinite values.")
]
Seed: TypeAlias = Annotated[int, typer.Option(min=0, help="Seed of permutations and bootstraps.")]
Jobs: TypeAlias = Annotated[int, typer.Option(min=1, help="Workers; numbers do not depend on it.")]
# How a model is loaded: the same in every command that loads one.
Revision: TypeAlias = Annotated[str | None, typer.Option("--revision", help="Revision of a hub id.")]
Dtype: TypeAlias = Annotated[
    str, typer.Option("--dtype", help="auto, float32, float16, bfloat16.", autocompletion=completion.dtypes)
]
Device: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device", help="auto, cpu, cuda, cuda:1, mps.", autocompletion=completion.one_of("auto", "cpu", "cuda", "mps")
    ),
]
DeviceMap: TypeAlias = Annotated[
    str | None, typer.Option("--device-map", help="Spread weights: auto, or JSON of module -> device.")
]
Quantize: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--quantize", help="nf4 or int8, by bitsandbytes, on a GPU.", autocompletion=completion.one_of("nf4", "int8")
    ),
]
Attention: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--attention", help="eager, sdpa, or a name of transformers.",
        autocompletion=completion.one_of("eager", "sdpa"),
    ),
]  # fmt: skip
Adapter: TypeAlias = Annotated[str | None, typer.Option("--adapter", help="Folder or hub id of a PEFT adapter.")]
MergeAdapter: TypeAlias = Annotated[bool, typer.Option("--merge-adapter", help="Add the adapter to the weights.")]
TrustRemoteCode: TypeAlias = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python files that come with the model.")
]
Anatomy: TypeAlias = Annotated[
    Path | None, typer.Option("--anatomy", help="YAML that names parts not located (docs/anatomy.md).")
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Store: TypeAlias = Annotated[Path, typer.Argument(help="Store, as run.acts, or a packed one.")]
Model: TypeAlias = Annotated[
    str,
    typer.Argument(help="Folder, hub id or embedded (cli.py ls models).", autocompletion=completion.models),
]


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
