"""The file is the registration: a module in a plugin package is a plugin, named as the file is.

A module `analyses/metrics/nao.py` that defines `metric` *is* the metric `nao`. A distribution that
BabelScope does not know registers the same object under the entry-point group `babelscope.metric`.
"""

import importlib
import os
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

from babelscope.errors import BabelScopeError, unknown_name


@dataclass(frozen=True, slots=True)
class PluginKind:
    """Where the plugins of one kind live, and the attribute that each of their modules defines."""

    package: str
    attribute: str
    listing: str


KINDS: Mapping[str, PluginKind] = MappingProxyType(
    {
        "dataset": PluginKind("babelscope.datasets.generators", "dataset", "cli.py data ls"),
        "loader": PluginKind("babelscope.datasets.loaders", "loader", "cli.py ls loaders"),
        "metric": PluginKind("babelscope.analyses.metrics", "metric", "cli.py ls metrics"),
        "probe": PluginKind("babelscope.probes.estimators", "probe", "cli.py ls probes"),
        "recipe": PluginKind("babelscope.analyses.recipes", "recipe", "cli.py ls recipes"),
        "similarity": PluginKind("babelscope.analyses.similarities", "similarity", "cli.py ls similarities"),
        "backend": PluginKind("babelscope.hooks.backends", "backend", "cli.py ls backends"),
        "exporter": PluginKind("babelscope.activations_store.exporters", "exporter", "cli.py ls exporters"),
        "importer": PluginKind("babelscope.activations_store.importers", "importer", "cli.py ls importers"),
        "tap": PluginKind("babelscope.hooks.taps", "tap", "cli.py ls sites"),
    }
)


def names(kind: str) -> tuple[str, ...]:
    """Names of all plugins of a kind, sorted; nothing is imported, so that a shell can complete them at once."""
    return tuple(sorted(_own(KINDS[kind].package) | _outside(kind).keys()))


def load(kind: str, name: str) -> Any:
    """The object that the plugin `name` of a kind defines.

    Raises
    ------
    BabelScopeError
        If there is no such plugin, or if its module lacks the attribute of its kind.
    """
    spec = KINDS[kind]
    canonical = name.replace("_", "-")
    if canonical not in names(kind):
        raise unknown_name(kind, name, names(kind), spec.listing)
    outside = _outside(kind)
    if canonical in outside:
        return outside[canonical].load()
    module = importlib.import_module(f"{spec.package}.{canonical.replace('-', '_')}")
    try:
        return getattr(module, spec.attribute)
    except AttributeError:
        raise BabelScopeError(
            f"{module.__file__}: a {kind} module must define `{spec.attribute}`", f"add `{spec.attribute} = ...`"
        ) from None


@cache
def _own(package: str) -> frozenset[str]:
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    found = pkgutil.iter_modules([str(folder)])
    return frozenset(m.name.replace("_", "-") for m in found if not m.name.startswith("_"))


def _outside(kind: str) -> Mapping[str, EntryPoint]:
    folders = tuple((folder, os.stat(folder).st_mtime_ns) for folder in sys.path if os.path.isdir(folder))
    return _registered(f"babelscope.{kind}", folders)


@lru_cache(maxsize=2 * len(KINDS))
def _registered(group: str, folders: tuple[tuple[str, int], ...]) -> Mapping[str, EntryPoint]:
    """Entry points of a group; the metadata of all distributions is read again only when one came or went.

    A distribution that is installed or removed changes the modification time of its folder in `folders`.
    """
    return MappingProxyType({e.name.replace("_", "-"): e for e in entry_points(group=group)})
