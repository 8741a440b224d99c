"""The verb `ablate`: variants of a training, each with several seeds, asked the same questions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from babelscope.analyses.statistics import stream
from babelscope.errors import BabelScopeError
from babelscope.schema import Result
from babelscope.training.ablation import AblationConfig, read_ablation
from babelscope.workflows.outputs import reported
from babelscope.workflows.prompts import gathered
from babelscope.workflows.signals import Note, Progress
from babelscope.workflows.training import train

GROUPS = {False: "monolingual", True: "code-switched"}


@dataclass(frozen=True, slots=True)
class Ablation:
    """The table of a grid; also as `table.csv`, `.parquet` and `.json` in its folder."""

    result: Result

    @property
    def table(self) -> pd.DataFrame:
        """One row per variant and language (or group of them): accuracy, and difference to the baseline."""
        return self.result.table

    def summary(self) -> str:
        """Means over the monolingual and the code-switched settings, as text."""
        shown = self.table[self.table["language"].str.startswith("all ")]
        return str(shown.round(3).to_string(index=False))


def ablate(
    config: AblationConfig | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    part: tuple[int, int] = (1, 1),
    limit: int | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> "Ablation | pd.DataFrame":
    """Train every variant with every seed, ask all of them the same questions, and tabulate.

    A grid that was interrupted goes on with the first run that is missing; several processes may share one folder by
    `part`, and the last of them finds the table.

    Parameters
    ----------
    part : tuple of int
        As (1, 2): the first of two shares of the seeds.
    limit : int, optional
        First items of each source of prompts, trained on and asked, to try it out.
    dry_run : bool
        Only say what would be trained.

    Returns
    -------
    Ablation, or for a dry run a DataFrame
        One row per run: examples, steps, trainable parameters.

    Raises
    ------
    BabelScopeError
        For anything that the user can fix.
    """
    grid = config if isinstance(config, AblationConfig) else read_ablation(config)
    grid = grid if limit is None else grid.limited(limit)
    folder = Path(out).expanduser()
    if dry_run:
        return _planned(grid, folder, note)
    record = folder / "ablation.json"
    if folder.exists() and (not record.exists() or json.loads(record.read_text("utf-8")) != _plain(grid)):
        raise BabelScopeError(f"{folder} holds something else than this grid", "name another output")
    with reported(folder):
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        (folder / "answers").mkdir(exist_ok=True)
        record.write_text(json.dumps(_plain(grid), indent=1, ensure_ascii=False), "utf-8")
    prompts = gathered(
        grid.test.prompts, grid.test.parameters, split="test", languages=grid.test.languages, limit=grid.test.limit,
        note=note,
    )  # fmt: skip
    for seed in grid.seeds[part[0] - 1 :: part[1]]:
        for name in grid.variants:
            _answers_of(grid, name, seed, folder, prompts, progress, note)
    missing = [f"{n}-{s}" for n in grid.variants for s in grid.seeds if not _answers(folder, n, s).exists()]
    if missing:
        note(f"{len(missing)} runs are missing, {missing[0]} among them: the table is over those that are there")
    result = _tabulated(grid, folder, len(prompts))
    result.save(folder)
    return Ablation(result)


def _planned(grid: AblationConfig, folder: Path, note: Note) -> pd.DataFrame:
    """What each run would do; queries that are not trained yet are copies here, of the same size."""
    runs = {f"queries-{name}": grid.queries(name, grid.seeds[0]) for name in grid.pretraining}
    runs |= {name: grid.run(name, grid.seeds[0], None) for name in grid.variants}
    rows = []
    for name, config in runs.items():
        plan = train(config, folder / name, dry_run=True, note=note)
        assert not isinstance(plan, Path)
        rows.append((name, len(grid.seeds), plan.examples, plan.tokens, plan.steps, plan.trainable))
    return pd.DataFrame(rows, columns=["run", "seeds", "examples", "tokens", "steps", "trainable"])


def _plain(grid: AblationConfig) -> Any:
    return json.loads(grid.model_dump_json())


def _answers(folder: Path, name: str, seed: int) -> Path:
    return folder / "answers" / f"{name}-{seed}.csv"


def _answers_of(
    grid: AblationConfig, name: str, seed: int, folder: Path, prompts: Any, progress: Progress | None, note: Note
) -> None:
    from babelscope.training.classifying import classified

    target = _answers(folder, name, seed)
    if target.exists():
        return
    variant, source = grid.variants[name], None
    if variant.pretrained is not None:
        source = str(_trained(folder / "runs" / f"queries-{variant.pretrained}-{seed}",
                              grid.queries(variant.pretrained, seed), progress, note))  # fmt: skip
    model = _trained(folder / "runs" / f"{name}-{seed}", grid.run(name, seed, source), progress, note)
    table = classified(str(model), prompts, progress)
    partial = target.with_suffix(".tmp")
    table.to_csv(partial, index=False)
    partial.replace(target)


def _trained(folder: Path, config: Any, progress: Progress | None, note: Note) -> Path:
    if not folder.exists():
        resume = folder.with_name(f"{folder.name}.checkpoints").exists()
        named = (lambda a, b, what: progress(a, b, f"{folder.name}: {what}")) if progress else None
        train(config, folder, resume=resume, progress=named, note=note)
    return folder


def _tabulated(grid: AblationConfig, folder: Path, n_prompts: int, n_boot: int = 2000, level: float = 0.95) -> Result:
    """Accuracy of each variant and setting, with intervals that resample seeds and, within them, items."""
    found = {
        (name, seed): pd.read_csv(_answers(folder, name, seed), dtype={"item": str})
        for name in grid.variants
        for seed in grid.seeds
        if _answers(folder, name, seed).exists()
    }
    settings: dict[str, list[str]] = {g: [g] for g in grid.test.languages}
    for is_pair, group in GROUPS.items():
        settings[f"all {group}"] = [g for g in grid.test.languages if ("-" in g) == is_pair]
    rows = []
    for setting, languages in settings.items():
        correct = {name: _correct(found, name, grid.seeds, languages) for name in grid.variants}
        base = correct[grid.baseline]
        for name, values in correct.items():
            if values is None:
                continue
            row: dict[str, Any] = {"variant": name, "language": setting, "seeds": values.shape[0], "n": values.shape[2],
                                   "accuracy": values.mean()}  # fmt: skip
            rng = stream(0, "ablation", setting, name)
            row["low"], row["high"] = _interval(values, rng, n_boot, level)
            row |= dict.fromkeys(("change", "change_low", "change_high"), np.nan)
            if name != grid.baseline and base is not None and base.shape == values.shape:
                row["change"] = (values - base).mean()
                row["change_low"], row["change_high"] = _interval(values - base, rng, n_boot, level)
            rows.append(row)
    about = {
        "grid": _plain(grid), "prompts": n_prompts, "baseline": grid.baseline,
        "interval": f"{100 * level:g} %, bootstrap over seeds, and over items that all seeds and languages share",
        "change": "accuracy minus that of the baseline with the same seed on the same item",
    }  # fmt: skip
    return Result("table", pd.DataFrame(rows), about)


def _correct(
    found: Mapping[tuple[str, int], pd.DataFrame], name: str, seeds: list[int], languages: list[str]
) -> Any | None:
    """(seed, language, item) of being right; None without any run, or any of the languages."""
    tables = [found[name, seed] for seed in seeds if (name, seed) in found]
    if not tables or not languages:
        return None
    wide = [
        t[t["language"].isin(languages)].pivot_table(index="language", columns="item", values="correct", sort=True)
        for t in tables
    ]
    return np.stack([w.loc[languages].to_numpy() for w in wide])


def _interval(values: Any, rng: np.random.Generator, n_boot: int, level: float) -> tuple[float, float]:
    n_seeds, _, n_items = values.shape
    by_item = values.mean(axis=1)
    seeds = rng.integers(n_seeds, size=(n_boot, n_seeds))
    weights = rng.multinomial(n_items, np.full(n_items, 1 / n_items), size=n_boot) / n_items
    means = np.einsum("bi,si->bs", weights, by_item)
    drawn = np.take_along_axis(means, seeds, axis=1).mean(axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
