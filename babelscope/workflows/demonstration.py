"""The verb `demo`: everything once, on the embedded model."""

import shutil
from collections.abc import Callable
from pathlib import Path

from babelscope.activations_store import ActivationStore
from babelscope.errors import BabelScopeError
from babelscope.workflows.analysis import Analysis, analyze
from babelscope.workflows.capture import Progress, capture
from babelscope.workflows.models import DEMO_MODEL

DEMO_PROMPTS = ("kfrd-arithmetic", "knowledge")
DEMO_SITES = ("resid.post", "mlp.act")
DEMO_ITEMS = 120
DEMO_SWEEP = {"threshold": tuple(round(0.1 + 0.05 * i, 2) for i in range(17))}


def demo(
    folder: str | Path = "demo",
    *,
    overwrite: bool = False,
    items: int = DEMO_ITEMS,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Analysis:
    """Capture the embedded model on parallel prompts in fourteen languages, analyze, and write a report.

    Writes `run.acts`, `tables/` and `report.html` to `folder`.
    """
    target = Path(folder)
    marker = target / "run.acts"
    if target.exists() and not overwrite:
        raise BabelScopeError(f"{target} exists already", "add --overwrite, or name another folder with --out")
    if target.exists() and any(target.iterdir()) and not marker.exists():
        raise BabelScopeError(f"{target} exists and holds no demo", "name another folder with --out")
    target.mkdir(parents=True, exist_ok=True)
    store = capture(
        marker, model=DEMO_MODEL, prompts=DEMO_PROMPTS, sites=DEMO_SITES, limit=items, overwrite=True,
        progress=progress, note=note,
    )  # fmt: skip
    assert isinstance(store, ActivationStore)
    analysis = analyze(store, ("cs", "nao"), sweep=DEMO_SWEEP, jobs=2, progress=progress)
    if (target / "tables").exists():
        shutil.rmtree(target / "tables")
    analysis.save(target / "tables")
    analysis.report(target / "report.html")
    return analysis
