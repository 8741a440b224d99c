"""Options that several commands share, and the parsing of comma-separated lists."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

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
    list[str] | None, typer.Option("--metric", help="cli.py ls metrics. Repeatable. Default: cs and nao.")
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
Store: TypeAlias = Annotated[Path, typer.Argument(help="Store folder, as run.acts.")]


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

    return dict(parse_sweep(text) for text in texts) if texts else None
