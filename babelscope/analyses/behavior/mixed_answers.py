"""Answers to the same items in every setting, group by group, and what is common to the tables that compare them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.accuracy import groups_of
from babelscope.analyses.behavior.scorings import chosen, nothing_to_count
from babelscope.analyses.behavior.settings import ALL_LANGUAGES, BASE, Cells, Setting, cells_of, settings_of
from babelscope.analyses.inference import mcnemar
from babelscope.analyses.statistics import (
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    interval,
    mean_of_defined,
    paired,
    resampled_means,
    stream,
    verdicts,
)
from babelscope.errors import BabelScopeError

N_PERM = 2000


class Cell(NamedTuple):
    """A row of a table: one setting in one language, or the mean over its languages."""

    kind: str
    language: str
    mitigation: str
    members: tuple[str, ...]

    @property
    def about(self) -> dict[str, object]:
        """The columns that name it."""
        return {"setting": self.kind, "language": self.language, "mitigation": self.mitigation}


@dataclass(frozen=True, slots=True, eq=False)
class MixedGroup:
    """The items of a group.

    Parameters
    ----------
    name : str
    correct, choice : mapping
        Code -> (item,): 1 or 0, and the index of the option; NaN where undefined.
    asked : mapping
        Code -> (item,): whether the prompt has options and a gold one.
    cells : mapping
        Code -> cells of these items.
    gold : ndarray
        (item,), NaN where unknown.
    chance : float
        Mean of 1 / number of options.
    weights : ndarray
        (resample, item).
    """

    name: str
    correct: Mapping[str, Floats]
    choice: Mapping[str, Floats]
    asked: Mapping[str, NDArray[np.bool_]]
    cells: Mapping[str, Cells]
    gold: Floats
    chance: float
    weights: Floats


@dataclass(frozen=True, slots=True, eq=False)
class MixedAnswers:
    """Answers by one scoring in every setting of a store.

    Parameters
    ----------
    settings : mapping
        Code -> setting.
    base : str
        Code of the base language, which a store may lack.
    groups : tuple of MixedGroup
    """

    settings: Mapping[str, Setting]
    base: str
    groups: tuple[MixedGroup, ...]

    def rows(self) -> Iterator[Cell]:
        """Every setting in every language, then the mean over languages of every setting (`*`)."""
        for s in self.settings.values():
            if s.language != ALL_LANGUAGES:
                yield Cell(s.kind, s.language, s.mitigation, (s.code,))
        together: dict[tuple[str, str], list[str]] = {}
        for s in self.settings.values():
            if s.kind != BASE:
                together.setdefault((s.kind, s.mitigation), []).append(s.code)
        for (kind, mitigation), members in together.items():
            yield Cell(kind, ALL_LANGUAGES, mitigation, tuple(members))

    def base_of(self, mitigation: str) -> str | None:
        """The base run with the same mitigation, else without one; None where the store has neither."""
        named = f"{self.base}+{mitigation}" if mitigation else self.base
        return next((code for code in (named, self.base) if code in self.settings), None)

    def whole_of(self, cell: Cell) -> tuple[str, ...]:
        """The settings `full` of the languages of a cell, with its mitigation, else without; () where one lacks."""
        cells = self.groups[0].cells
        languages = sorted({g for code in cell.members for g in self._languages(code, cells[code])})
        for suffix in dict.fromkeys((f"+{cell.mitigation}" if cell.mitigation else "", "")):
            codes = tuple(f"full_{g}{suffix}" for g in languages)
            if codes and all(code in self.settings for code in codes):
                return codes
        return ()

    def _languages(self, code: str, cells: Cells) -> frozenset[str]:
        setting = self.settings[code]
        return cells.languages if setting.language == ALL_LANGUAGES else frozenset([setting.language])


def mixed_answers(
    store: ActivationStore, base: str, *, by: str | None, scoring: str, n_boot: int, seed: int
) -> MixedAnswers:
    """Read the answers of a store.

    Raises
    ------
    BabelScopeError
        If no language of the store is a setting, and as `scorings.chosen` does.
    """
    settings = settings_of(store.languages, base)
    if not any(s.kind != BASE for s in settings.values()):
        raise BabelScopeError(
            f"{store.path} has no settings of mixed-language multiple choice beside {base}",
            "capture such prompts, whose languages are called full_de, gt_de, mixup and so on",
        )
    answers = chosen(store, scoring)
    answers = answers[answers["language"].isin(list(settings))]
    if answers["correct"].isna().all():
        raise nothing_to_count(store, answers, scoring)
    wide = {
        name: answers.astype({name: "Float64"}).pivot(index="item", columns="language", values=name)
        .reindex(index=list(store.items), columns=list(settings)).to_numpy(float, na_value=np.nan)
        for name in ("correct", "choice", "gold", "n_options", "asked")
    }  # fmt: skip
    cells = cells_of(store, base)
    group = groups_of(store, by).reindex(list(store.items))
    found = []
    for name in group.dropna().unique():
        at = np.flatnonzero((group == name).to_numpy())
        part = {key: values[at] for key, values in wide.items()}
        options = np.where(np.isnan(part["correct"]), np.nan, part["n_options"])
        weights = bootstrap_weights(len(at), n_boot, stream(seed, "mixed", str(name)))
        found.append(MixedGroup(
            str(name), _by_code(settings, part["correct"]), _by_code(settings, part["choice"]),
            {code: column == 1 for code, column in _by_code(settings, part["asked"]).items()},
            {code: Cells(c.foreign[at], c.changed[at], c.languages) for code, c in cells.items()},
            mean_of_defined(part["gold"]), float(mean_of_defined(1 / options.ravel())), weights,
        ))  # fmt: skip
    return MixedAnswers(settings, base, tuple(found))


def _by_code(settings: Mapping[str, Setting], values: Floats) -> dict[str, Floats]:
    return dict(zip(settings, values.T, strict=True))


def together(values: Mapping[str, Floats], codes: Sequence[str]) -> Floats:
    """Mean over settings, item by item; NaN unless an item has all of them, so that no mean mixes other languages."""
    found: Floats = np.mean([values[code] for code in codes], axis=0)
    return found


def compared(
    a: Floats, b: Floats, weights: Floats, level: float, rng: np.random.Generator, *, name: str, suffix: str = "",
    signs: bool = False,
) -> dict[str, object]:  # fmt: skip
    """Mean of `a - b` over the items that have both, with a bootstrap interval and a two-sided p.

    p is McNemar's exact one where both are 0 or 1, unless `signs`; else that of flipped signs (`statistics.paired`).

    Parameters
    ----------
    a, b : ndarray
        (item,), NaN where undefined.
    name, suffix : str
        Of the columns: `NAME`, `NAME_low`, `NAME_high`, `nSUFFIX`, `pSUFFIX`, `testSUFFIX`.
    """
    both = ~np.isnan(a - b)
    binary = not signs and bool(np.isin(np.concatenate([a[both], b[both]]), (0, 1)).all())
    found = paired(b, a, weights, n_perm=1 if binary else N_PERM, level=level, rng=rng)
    p = mcnemar(a[both], b[both]) if binary else float(found.p)
    return {
        f"n{suffix}": int(both.sum()), name: float(found.estimate), f"{name}_low": float(found.low),
        f"{name}_high": float(found.high), f"test{suffix}": "McNemar exact" if binary else "sign flips",
        f"p{suffix}": p if both.any() else np.nan,
    }  # fmt: skip


def mean_between(values: Floats, weights: Floats, level: float, name: str) -> dict[str, float]:
    """Mean of what is defined, with its bootstrap interval over items: `NAME`, `NAME_low`, `NAME_high`."""
    low, high = interval(resampled_means(values, weights), level)
    return {name: float(mean_of_defined(values)), f"{name}_low": float(low), f"{name}_high": float(high)}


def judged(table: pd.DataFrame, families: Sequence[str], name: str, n: str, suffix: str = "") -> pd.DataFrame:
    """The same with q and verdict of a difference; means over languages are a family of their own."""
    keys = [table[key] for key in families] + [table["language"] == ALL_LANGUAGES]
    q = table.groupby(keys, sort=False)[f"p{suffix}"].transform(benjamini_hochberg)
    words = verdicts(table[name], table[f"{name}_low"], table[f"{name}_high"], q, table[n])
    return table.assign(**{f"q{suffix}": q, f"verdict{suffix}": words})
