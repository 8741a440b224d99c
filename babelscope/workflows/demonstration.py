"""The verb `demo`: everything once, on the embedded model."""

from pathlib import Path

from babelscope.activations_store import ActivationStore
from babelscope.errors import BabelScopeError
from babelscope.workflows.analysis import PARTS, Analysis, analyze
from babelscope.workflows.captures import CaptureStoppedError, capture
from babelscope.workflows.model_folders import DEMO_MODEL
from babelscope.workflows.outputs import new_folder
from babelscope.workflows.signals import Note, Progress

DEMO_PROMPTS = ("kfrd-arithmetic", "knowledge")
DEMO_SITES = ("resid.post", "mlp.act")
DEMO_ITEMS = 120
DEMO_SWEEP = {"threshold": tuple(round(0.1 + 0.05 * i, 2) for i in range(17))}
STORE = "run.acts"


def demo(
    folder: str | Path = "demo",
    *,
    overwrite: bool = False,
    items: int = DEMO_ITEMS,
    model: str = DEMO_MODEL,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> Analysis:
    """Capture the embedded model on parallel prompts in fourteen languages, analyze, and write a report.

    Writes `run.acts`, `tables/` and `report.html` to `folder`, all of them or nothing.

    Parameters
    ----------
    folder : path
    overwrite : bool
        Replace an earlier demo.
    items : int
        Items per task.
    model : str
        Another model than the embedded one.
    progress, note : callable, optional
        As for `capture`.

    Raises
    ------
    BabelScopeError
        If `folder` exists and may not be replaced, or holds anything but a demo.
    """
    target = Path(folder).expanduser()
    with new_folder(target, overwrite=overwrite, parts=PARTS | {STORE}) as building:
        try:
            store = capture(
                building / STORE, model=model, prompts=DEMO_PROMPTS, sites=DEMO_SITES, limit=items,
                progress=progress, note=note,
            )  # fmt: skip
        except CaptureStoppedError:
            raise BabelScopeError("the demo was stopped, and nothing of it is kept", "run it again") from None
        assert isinstance(store, ActivationStore)
        analysis = analyze(store, ("cs", "nao"), sweep=DEMO_SWEEP, jobs=2, progress=progress)
        analysis.save(building / "tables")
        analysis.report(building / "report.html")
    return Analysis(ActivationStore.open(target / STORE), analysis.results)
