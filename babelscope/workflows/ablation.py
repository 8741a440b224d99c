"""The verb `ablate`: variants of a training, each with several seeds, asked the same questions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from babelscope import reports
from babelscope.analyses.statistics import (
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    interval,
    paired,
    resampled_means,
    stream,
    verdicts,
)  # fmt: skip
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet, Result
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
        return reports.texts(self.shown())

    def shown(self) -> dict[str, pd.DataFrame]:
        """The table that `summary` prints, with every digit."""
        return {"ablation": self.table[self.table["language"].str.startswith("all ")]}


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
    result = _tabulated(grid, folder, prompts)
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
    grid: AblationConfig, name: str, seed: int, folder: Path, prompts: PromptSet, progress: Progress | None, note: Note
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


def _tabulated(
    grid: AblationConfig, folder: Path, prompts: PromptSet, n_boot: int = 2000, n_perm: int = 2000, level: float = 0.95
) -> Result:
    """Accuracy of each variant and setting beside chance, and its difference to the baseline."""
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
        options = [len(p.options or p.letters) for g in languages for p in prompts.of(g)]
        correct = {name: _correct(found, name, grid.seeds, languages) for name in grid.variants}
        chance = float(np.mean(1 / np.array(options))) if options else np.nan
        for name, by_seed in correct.items():
            if by_seed:
                rng = stream(0, "ablation", setting, name)
                beside = {} if name == grid.baseline else correct[grid.baseline]
                cells = _cells(by_seed, beside, rng, n_boot=n_boot, n_perm=n_perm, level=level)
                rows.append({"variant": name, "language": setting, "chance": chance, **cells})
    table = pd.DataFrame(rows)
    table["q"] = table.groupby("language", sort=False)["p"].transform(benjamini_hochberg)
    table["verdict"] = verdicts(table["change"], table["change_low"], table["change_high"], table["q"], table["n"])
    table.loc[table["variant"] == grid.baseline, "verdict"] = "baseline"
    about = {
        "grid": _plain(grid), "prompts": len(prompts), "baseline": grid.baseline,
        "n": "items that every seed has in every language of the setting",
        "interval": f"{100 * level:g} %, bootstrap over seeds and over items; over items alone where there is one seed",
        "change": "accuracy minus that of the baseline with the same seed on the same item, over seeds that both have",
        "p": "signs of the items' mean changes flipped, two-sided, add-one rule: these seeds, other items",
        "q": "Benjamini-Hochberg over the variants of a setting",
    }  # fmt: skip
    return Result("table", table, about)


def _correct(
    found: Mapping[tuple[str, int], pd.DataFrame], name: str, seeds: Sequence[int], languages: Sequence[str]
) -> dict[int, pd.Series]:
    """Seed -> mean over the languages of being right, by item; items that one of the languages lacks are left out."""
    by_seed = {}
    for seed in seeds:
        if (name, seed) in found and languages:
            table = found[name, seed]
            wide = table.pivot_table(index="item", columns="language", values="correct").reindex(
                columns=list(languages)
            )
            by_seed[seed] = wide.dropna().mean(axis=1)
    return by_seed


def _cells(
    by_seed: Mapping[int, pd.Series],
    baseline: Mapping[int, pd.Series],
    rng: np.random.Generator,
    *,
    n_boot: int,
    n_perm: int,
    level: float,
) -> dict[str, object]:
    values = _joined(by_seed)
    low, high = _interval(values, rng, n_boot, level)
    cells: dict[str, object] = {
        "seeds": len(values), "n": values.shape[1], "accuracy": values.mean() if values.size else np.nan,
        "low": low, "high": high, **dict.fromkeys(("change", "change_low", "change_high", "p"), np.nan),
    }  # fmt: skip
    changes = _joined({seed: by_seed[seed] - baseline[seed] for seed in by_seed if seed in baseline})
    if changes.size:
        cells["change"] = changes.mean()
        cells["change_low"], cells["change_high"] = _interval(changes, rng, n_boot, level)
        by_item, weights = changes.mean(axis=0), np.ones((1, changes.shape[1]))
        cells["p"] = float(paired(0 * by_item, by_item, weights, n_perm=n_perm, level=level, rng=rng).p)
    return cells


def _joined(by_seed: Mapping[int, pd.Series]) -> Floats:
    """(seed, item), the items that all seeds have."""
    return pd.DataFrame(dict(by_seed)).dropna().to_numpy(float).T


def _interval(values: Floats, rng: np.random.Generator, n_boot: int, level: float) -> tuple[float, float]:
    n_seeds, n_items = values.shape
    if not n_items:
        return np.nan, np.nan
    means = resampled_means(values, bootstrap_weights(n_items, n_boot, rng)).T
    seeds = rng.integers(n_seeds, size=(n_boot, n_seeds))
    low, high = interval(np.take_along_axis(means, seeds, axis=1).mean(axis=1)[None], level)
    return float(low[0]), float(high[0])
