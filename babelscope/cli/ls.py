"""`babelscope ls`: what can be named."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from babelscope import layout, plugins, workflows
from babelscope.cli.options import AsJson
from babelscope.cli.printing import show
from babelscope.cli.progress import note
from babelscope.schema import SITE_KINDS
from babelscope.schema.position import POSITION_KINDS


class Kind(StrEnum):
    """What `ls` lists."""

    metrics = "metrics"
    recipes = "recipes"
    similarities = "similarities"
    probes = "probes"
    sites = "sites"
    positions = "positions"
    datasets = "datasets"
    loaders = "loaders"
    backends = "backends"
    exporters = "exporters"
    importers = "importers"
    models = "models"


def run(
    kind: Annotated[Kind, typer.Argument(help=f"One of {', '.join(Kind)}.")],
    as_json: AsJson = False,
) -> None:
    """List everything of a kind by the name that other commands take."""
    match kind:
        case Kind.sites:
            rows = {name: f"({', '.join(k.axes)})  {k.tensor}" for name, k in SITE_KINDS.items()}
        case Kind.positions:
            rows = dict(POSITION_KINDS)
        case Kind.models:
            rows = dict.fromkeys(workflows.models(), "embedded")
        case Kind.metrics | Kind.recipes | Kind.datasets | Kind.probes:
            singular = kind.value.removesuffix("s")
            rows = {name: plugins.load(singular, name).info.title for name in plugins.names(singular)}
        case Kind.similarities:
            rows = {name: _first_line(plugins.load("similarity", name)) for name in plugins.names("similarity")}
        case _:
            rows = dict.fromkeys(plugins.names(kind.value.removesuffix("s")), "")
    if not rows:
        note(f"no {kind.value} here")
    show(layout.facts(rows), rows, as_json=as_json)


def _first_line(plugin: object) -> str:
    """What the module of a plugin says about it."""
    return (sys.modules[type(plugin).__module__].__doc__ or "").strip().partition("\n")[0]
