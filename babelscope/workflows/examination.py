"""The verb `doctor`: what was found in a model, and whether it is what its name says."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelscope import layout
from babelscope.errors import BabelScopeError
from babelscope.schema import SITE_KINDS
from babelscope.workflows.model_folders import model_path
from babelscope.workflows.prompts import prompts_of

if TYPE_CHECKING:
    from babelscope.hooks import LoadedModel
    from babelscope.hooks.findings import Part

PROMPTS = "knowledge-bare"  # short, and generated here: a model can be examined without any data


@dataclass(frozen=True, slots=True)
class Examination:
    """What `doctor` found.

    Parameters
    ----------
    model, architecture : str
    parts : tuple of Part
        Which module is which part, and in how many layers.
    sites : tuple of str
        Site expressions that can be captured; layers are named where some lack the site.
    laws : mapping
        Site -> relative error on real tensors.
    self_test : mapping
        Check -> error.
    notes : tuple of str
        What is missing, and why, and what the user should know about the model.
    problems : tuple of str
        What keeps the model from being located and proven; empty where nothing does.
    """

    model: str
    architecture: str
    parts: "tuple[Part, ...]"
    sites: tuple[str, ...]
    laws: Mapping[str, float] = field(default_factory=dict)
    self_test: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [
            {
                "part": f"{p.stack} {p.name}".strip(),
                "layers": f"{p.n_found} of {p.n_layers}",
                "path": p.path or "not found",
            }
            for p in self.parts
        ]
        blocks = [
            f"{self.model}  {self.architecture}",
            layout.table(parts),
            layout.facts({"sites": " ".join(self.sites)}),
        ]
        for title, errors in (("law", self.laws), ("self-test", self.self_test)):
            rows = [{title: name, "relative error": f"{error:.1e}"} for name, error in errors.items()]
            blocks += [layout.table(rows)] if rows else []
        for title, texts in (("notes", self.notes), ("problems", self.problems)):
            blocks += [f"{title}\n{layout.bullets(texts)}"] if texts else []
        return "\n\n".join(blocks)


def doctor(
    model: str,
    *,
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
) -> Examination:
    """Find the parts of a model, prove every site on real tensors and run the self-test of a capture.

    Parameters
    ----------
    model : str
        Local folder, hub id, or name of an embedded model.
    revision, dtype, device, device_map, quantize, attn_implementation : optional
        As in `hooks.load_model`.
    adapter, merge_adapter, trust_remote_code, anatomy : optional
        As in `hooks.load_model`.

    Raises
    ------
    BabelScopeError
        If the model cannot be loaded, or none of its blocks can be found.
    """
    from babelscope import hooks
    from babelscope.hooks import findings

    loaded = hooks.load_model(
        model_path(model), revision=revision, dtype=dtype, device=device, device_map=device_map, quantize=quantize,
        adapter=adapter, merge_adapter=merge_adapter, attn_implementation=attn_implementation, anatomy=anatomy,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    missing = findings.unproven(loaded.anatomy)
    problems = [f"not located in every layer: {', '.join(missing)}"] if missing else []
    sites = _sites(loaded)
    laws: dict[str, float] = {}
    checks: dict[str, float] = {}
    try:
        for name, error in _self_test(loaded, sites).items():
            law = name.removeprefix("law of ")
            (checks if law == name else laws)[law] = error
    except BabelScopeError as error:
        problems.append(error.problem)
    return Examination(
        model=model,
        architecture=loaded.ref.architecture,
        parts=findings.parts_of(loaded.anatomy),
        sites=sites,
        laws=laws,
        self_test=checks,
        notes=(*loaded.notes, *findings.notes_of(loaded.anatomy)),
        problems=tuple(problems),
    )


def _sites(loaded: "LoadedModel") -> tuple[str, ...]:
    """Every site that can be captured; with its layers where not all of them have it in the same shape."""
    from babelscope.hooks.tap import place_of, unit_of
    from babelscope.schema import Site

    found = []
    for stack, n_layers in loaded.ref.depths.items():
        for kind, about in SITE_KINDS.items():
            layers = range(n_layers) if about.per_layer else [None]
            shapes: dict[tuple[int, ...], list[int | None]] = {}
            for site in (Site(kind, i, stack) for i in layers):
                with contextlib.suppress(BabelScopeError):
                    place_of(loaded.anatomy, site)
                    shapes.setdefault(unit_of(loaded.anatomy, [site]), []).append(site.layer)
            name = Site(kind, None, stack).name
            for having in shapes.values():
                found.append(name if len(having) == len(layers) else f"{name}@{','.join(map(str, having))}")
    return tuple(found)


def _self_test(loaded: "LoadedModel", sites: Sequence[str]) -> dict[str, float]:
    from babelscope import hooks

    prompts, _ = prompts_of(PROMPTS, limit=2)
    # Rows of one dataset have one shape; the laws prove a site in all its layers.
    first: dict[str, str] = {}
    for site in sites:
        first.setdefault(site.partition("@")[0], site)
    plan = hooks.make_plan(loaded, prompts, sites=list(first.values()), positions=["last"])
    return hooks.self_test(loaded, prompts, plan)
