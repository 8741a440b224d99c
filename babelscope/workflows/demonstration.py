"""The verb `demo`: everything once, on the embedded model."""

from dataclasses import replace
from pathlib import Path

from babelscope.activations_store import ActivationStore
from babelscope.errors import BabelScopeError
from babelscope.workflows.analysis import ANALYSIS_PARTS, Analysis, analyze
from babelscope.workflows.captures import CaptureStoppedError, capture
from babelscope.workflows.evaluation import evaluate
from babelscope.workflows.model_folders import DEMO_MODEL
from babelscope.workflows.outputs import new_folder
from babelscope.workflows.signals import Note, Progress

DEMO_PROMPTS = ("kfrd-arithmetic", "knowledge")
DEMO_SITES = ("resid.post", "mlp.act", "attn.mass")
DEMO_ITEMS = 120
DEMO_SWEEP = {"threshold": tuple(round(0.1 + 0.05 * i, 2) for i in range(17))}
STORE = "run.acts"
WITHIN = ("rule",)
WITHIN_TABLES, WITHIN_REPORT = "within-rule", "report-within-rule.html"
WITHIN_PARTS = {WITHIN_TABLES, WITHIN_REPORT, "report-within-rule.json", "report-within-rule.figures"}


def demo(
    folder: str | Path = "demo",
    *,
    overwrite: bool = False,
    items: int = DEMO_ITEMS,
    model: str = DEMO_MODEL,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> tuple[Analysis, Analysis]:
    """Capture the embedded model on parallel prompts in fourteen languages, analyze, and write reports.

    Writes `run.acts`, `tables/` and `report.html` to `folder`, then `within-rule/` and `report-within-rule.html`, whose
    null is restricted to items of the same rule; all of them or nothing.

    Parameters
    ----------
    folder : path
    overwrite : bool
        Replace an earlier demo.
    items : int
        Items per task. Tasks have up to nine rules, and a null takes three items of one: 24 are enough.
    model : str
        Another model than the embedded one.
    progress, note : callable, optional
        As for `capture`.

    Returns
    -------
    tuple of Analysis
        With a null of all items of a group, swept, and with a null restricted to items of the same rule, at one
        threshold.

    Raises
    ------
    BabelScopeError
        If `folder` exists and may not be replaced, or holds anything but a demo.
    """
    target = Path(folder).expanduser()
    with new_folder(target, overwrite=overwrite, parts=ANALYSIS_PARTS | WITHIN_PARTS | {STORE}) as building:
        try:
            store = capture(
                building / STORE, model=model, prompts=DEMO_PROMPTS, sites=DEMO_SITES, limit=items,
                progress=progress, note=note,
            )  # fmt: skip
        except CaptureStoppedError as stopped:
            raise BabelScopeError(
                "the demo was stopped, and nothing of it is kept", "run it again", stopped.exit_code
            ) from None
        assert isinstance(store, ActivationStore)
        plain = analyze(store, ("cs", "nao"), sweep=DEMO_SWEEP, jobs=2, progress=progress)
        answered = [
            r for r in evaluate(store, mode="corrected").results if r.name not in {p.name for p in plain.results}
        ]
        plain = replace(plain, results=(*plain.results, *answered))
        plain.save(building / "tables")
        plain.report(building / "report.html")
        # Items of different rules are told apart by the rule alone, which says little about the question.
        restricted = analyze(store, ("cs", "nao"), within=WITHIN, jobs=2, progress=progress)
        restricted.save(building / WITHIN_TABLES)
        restricted.report(building / WITHIN_REPORT)
    written = ActivationStore.open(target / STORE)
    return Analysis(written, plain.results), Analysis(written, restricted.results)
