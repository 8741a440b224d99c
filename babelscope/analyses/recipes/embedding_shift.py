"""Whether texts with translated words stay closer to the original than texts that lose the same words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import stats

from babelscope.analyses.directed import directed_verdicts
from babelscope.analyses.distributions import exceedance, largest_distance, standardized_difference
from babelscope.analyses.metric import Similarity
from babelscope.analyses.pairs import pair_scores, permuted_means
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.similarities.cosine import Cosine
from babelscope.analyses.similarities.cosine_centered import CenteredCosine
from babelscope.analyses.statistics import (
    Contrast,
    Floats,
    benjamini_hochberg,
    interval,
    mean_of_defined,
    paired,
    permutation_p,
    resample,
    resampled_means,
    stream,
)
from babelscope.analyses.study import Study
from babelscope.datasets.perturbed import CONTROLS, DROPPED, MIXED, RANDOM, VARIANTS
from babelscope.errors import BabelScopeError
from babelscope.schema import Result

SITE = "resid.post"
POSITIONS = ("mean", "last")
COSINES: Mapping[str, Similarity] = {"raw": Cosine(), "centered": CenteredCosine()}

UNKNOWN = (
    "the layer and the pooling of the published embeddings: last layer and mean over all tokens are assumed here",
    "whether the last layer was taken before or after the final norm: resid.post is before it",
    "the statistic and the test that compared the distributions: Welch's t and Kolmogorov-Smirnov are ours",
    "the rates (.16, or .8 against .16) and the places: here those of the prompts",
    "how tokens were dropped: published as masked attention, here as removed words",
)


@dataclass(frozen=True, slots=True)
class EmbeddingShift:
    """Cosine between a text and its variants, of `cli.py data perturb`, item by item.

    Parameters
    ----------
    original : str
        Language of the texts as they were; "" for the first language that is no variant.
    """

    original: str = ""

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Shift of embeddings by mixed languages",
        question="Is mixed-language text closer to the original than text that loses the same words?",
        reads=(SITE,),
        needs_model=False,
        source="the comparison of arXiv:2406.16135, with places and rates matched; its code is not published",
    )

    def run(self, study: Study) -> list[Result]:
        """The claims, then cosines and differences by layer, then what can be said of the published comparison.

        Raises
        ------
        BabelScopeError
            Without an original, `mixed` or a control among the languages, or without `resid.post`.
        """
        original, variants = self._languages(study)
        cells = list(_cells(study, original, variants))
        over = [_over_layers(alike) for alike in _alike(cells)]
        controls = [code for code in variants if code != MIXED]
        claims = [row for cell in over for row in _claims(study, cell, controls)]
        layers = [row for cell in (*over, *cells) for row in _cosines(study, cell)]
        differences = [row for cell in (*over, *cells) for row in _differences(study, cell, controls)]
        about = {
            **study.provenance(), "title": self.info.title, "original": original, "variants": variants,
            "positions": sorted({c.position for c in cells}), "parameters": repr(self), **MEANING,
        }  # fmt: skip
        table = claims_table(claims, family=("group",))
        results = [
            Result("embedding_shift", table.assign(verdict=directed_verdicts(table)), about),
            Result("embedding_shift_cosines", _corrected(pd.DataFrame(layers)), about),
            Result("embedding_shift_differences", _corrected(pd.DataFrame(differences)), about),
        ]
        published = [row for cell in cells for row in _published(study, cell)]
        if published:
            results.append(Result("embedding_shift_paper", pd.DataFrame(published), {**about, "unknown": UNKNOWN}))
        else:
            study.note(f"no table of the published comparison: it takes {SITE} of the last layer at position mean")
        return results

    def _languages(self, study: Study) -> tuple[str, tuple[str, ...]]:
        others = [g for g in study.languages if g not in VARIANTS]
        variants = tuple(g for g in VARIANTS if g in study.languages)
        original = self.original or (others[0] if others else "")
        if original not in study.languages or MIXED not in variants or len(variants) < 2:
            raise BabelScopeError(
                f"an original, {MIXED} and a control ({', '.join(CONTROLS)}) are not all among the languages: "
                f"{', '.join(study.languages)}",
                "capture prompts of `cli.py data perturb`, and leave out --languages",
            )
        return original, variants


MEANING: Mapping[str, str] = {
    "closer": "mean over items of the cosine of mixed with the original minus that of a control with it",
    "raw": "cosine of the activations as they are",
    "centered": "each language's mean over the items is subtracted first, and with it what all of its texts share",
    "every control": "the control with the smallest difference; p is the largest of all controls (Berger 1982)",
    "interval": "percentile bootstrap over items, 95%; of p_null shuffled items",
    "p": "of differences: signs flipped item by item, two-sided, add-one rule",
    "q": "Benjamini-Hochberg over controls, cosines and positions of a group; in tables by layer over layers, too",
    "null": "cosine with the original of other items; of a Kolmogorov-Smirnov distance, items' two values exchanged",
    "n_same": "items of which the variant has the activation of the original: nothing was changed",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Cell:
    """Everything of one position, group, layer (None: over layers) and cosine.

    `cosine`, `gap` are variant -> (item,), `permuted` variant -> (permutation,), `n_same` variant -> items.
    """

    position: str
    group: str
    layer: int | None
    kind: str
    weights: Floats
    cosine: dict[str, Floats] = field(default_factory=dict)
    gap: dict[str, Floats] = field(default_factory=dict)
    permuted: dict[str, Floats] = field(default_factory=dict)
    n_same: dict[str, int] = field(default_factory=dict)

    @property
    def place(self) -> dict[str, Any]:
        return {"group": self.group, "site": SITE, "layer": self.layer, "position": self.position, "cosine": self.kind}


def _cells(study: Study, original: str, variants: Sequence[str]) -> Iterator[_Cell]:
    stored = [str(p) for p in study.store.plan.positions]
    positions = [p for p in POSITIONS if p in stored] or [str(study.position)]
    codes = (original, *variants)
    sites = study.layers(SITE)
    drawn = {
        group: resample(len(items), codes, seed=study.seed, group=group, n_boot=study.n_boot, n_perm=study.n_perm)
        for group, items in study.groups.items()
    }
    places = [study.languages.index(code) for code in codes]
    for done, (position, site) in enumerate(((p, s) for p in positions for s in sites), start=1):
        for group, items in study.groups.items():
            block = study.block(site, items=items, position=position)[places]
            x = np.asarray(block.reshape(*block.shape[:2], -1), dtype=np.float64)
            for kind, similarity in COSINES.items():
                cell = _Cell(position, group, site.layer, kind, drawn[group].weights)
                for k, code in enumerate(variants, start=1):
                    S = similarity(x[0], x[k])
                    scores = pair_scores(S, centered_in_sample=similarity.centered_in_sample)
                    cell.cosine[code], cell.gap[code] = scores.matched, scores.gap
                    shuffles = drawn[group].permutations
                    cell.permuted[code] = permuted_means(S[None], shuffles[:, 0], shuffles[:, k])[0]
                    cell.n_same[code] = int((x[0] == x[k]).all(axis=-1).sum())
                yield cell
        study.progress(done, len(positions) * len(sites), f"embedding shift {site} {position}")


def _alike(cells: Sequence[_Cell]) -> list[list[_Cell]]:
    """Cells that differ in their layer alone."""
    found: dict[tuple[str, ...], list[_Cell]] = {}
    for cell in cells:
        found.setdefault((cell.position, cell.group, cell.kind), []).append(cell)
    return list(found.values())


def _over_layers(cells: Sequence[_Cell]) -> _Cell:
    first = cells[0]

    def mean(name: str, code: str) -> Floats:
        return mean_of_defined(np.stack([getattr(cell, name)[code] for cell in cells]), axis=0)

    whole = _Cell(first.position, first.group, None, first.kind, first.weights)
    for code in first.cosine:
        whole.cosine[code], whole.gap[code] = mean("cosine", code), mean("gap", code)
        whole.permuted[code] = mean("permuted", code)
        whole.n_same[code] = min(cell.n_same[code] for cell in cells)
    return whole


def _paired(study: Study, cell: _Cell, control: str) -> Contrast:
    rng = stream(study.seed, "embedding", cell.group, control)  # the same signs in every layer
    a, b = cell.cosine[control], cell.cosine[MIXED]
    return paired(a, b, cell.weights, n_perm=study.n_perm, level=0.95, rng=rng)


def _claims(study: Study, cell: _Cell, controls: Sequence[str]) -> Iterator[dict[str, Any]]:
    found = {control: _paired(study, cell, control) for control in controls}
    about = {"group": cell.group, "site": SITE, "null": 0.0}
    for control, one in found.items():
        claim = f"{cell.kind} cosine at {cell.position}: mixed is closer than {control}"
        yield {**about, "claim": claim, "language_a": MIXED, "language_b": control, **_numbers(one)}
    weakest = min(controls, key=lambda c: float(found[c].estimate))
    p = float(np.max([float(one.p) for one in found.values()]))  # NaN, where one is
    claim = f"{cell.kind} cosine at {cell.position}: mixed is closer than every control"
    of = {"language_a": MIXED, "language_b": "*"}
    yield {**about, **of, "claim": claim, **_numbers(found[weakest]), "p": p}


def _numbers(found: Contrast) -> dict[str, Any]:
    return {
        "n": int(found.n_a), "estimate": float(found.estimate), "low": float(found.low), "high": float(found.high),
        "p": float(found.p),
    }  # fmt: skip


def _cosines(study: Study, cell: _Cell) -> Iterator[dict[str, Any]]:
    for code, values in cell.cosine.items():
        own, gap = mean_of_defined(values), mean_of_defined(cell.gap[code])
        (low, high), (gap_low, gap_high) = (
            interval(resampled_means(v[None], cell.weights), 0.95) for v in (values, cell.gap[code])
        )
        yield {
            **cell.place, "variant": code, "n": int(np.count_nonzero(~np.isnan(values))), "n_same": cell.n_same[code],
            "cosine_with_original": float(own), "low": float(low[0]), "high": float(high[0]),
            "null": float(own - gap), "gap": float(gap), "gap_low": float(gap_low[0]), "gap_high": float(gap_high[0]),
            "p": float(permutation_p(np.asarray(own), cell.permuted[code])),
        }  # fmt: skip


def _differences(study: Study, cell: _Cell, controls: Sequence[str]) -> Iterator[dict[str, Any]]:
    b = cell.cosine[MIXED]
    for control in controls:
        a, one = cell.cosine[control], _paired(study, cell, control)
        row = {**cell.place, "control": control, **_numbers(one)}
        rng = stream(study.seed, "embedding", cell.group, control, "distance")
        for name, effect in (
            ("d", standardized_difference(a, b, cell.weights)),
            ("auc", exceedance(a, b, cell.weights)),
            ("ks", largest_distance(a, b, cell.weights, n_perm=min(study.n_perm, 499), rng=rng)),
        ):
            row |= {name: effect.estimate, f"{name}_low": effect.low, f"{name}_high": effect.high}
            row |= {f"{name}_null": effect.null}
        yield row


def _published(study: Study, cell: _Cell) -> Iterator[dict[str, Any]]:
    """Mean cosines and two tests of unpaired distributions, where what is known of the paper can be met."""
    if cell.kind != "raw" or cell.position != "mean" or cell.layer != study.store.plan.model.n_layers - 1:
        return
    mixed = cell.cosine[MIXED]
    for control in (c for c in (RANDOM, DROPPED) if c in cell.cosine):
        other = cell.cosine[control]
        a, b = mixed[~np.isnan(mixed)], other[~np.isnan(other)]
        varies = min(np.ptp(a), np.ptp(b)) > 1e-12
        ks = stats.ks_2samp(a, b, method="asymp")
        yield {
            "group": cell.group, "site": SITE, "layer": cell.layer, "position": cell.position, "control": control,
            "n": min(len(a), len(b)), "mixed": float(a.mean()), "control_mean": float(b.mean()),
            "p_welch": float(stats.ttest_ind(a, b, equal_var=False).pvalue) if varies else float("nan"),
            "ks": float(ks.statistic), "p_ks": float(ks.pvalue),
        }  # fmt: skip


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Corrected p-values over layers and over variants, cosines and positions; means over layers apart from layers."""
    table = table.astype({"layer": "Int64"})
    keys = [table["group"], table["layer"].isna()]
    table["q"] = table.groupby(keys, sort=False)["p"].transform(benjamini_hochberg)
    names = ("gap", "gap_low", "gap_high") if "gap" in table else ("estimate", "low", "high")
    numbers = dict(zip(("estimate", "low", "high"), (table[name] for name in names), strict=True))
    return table.assign(verdict=directed_verdicts(table.assign(**numbers, null=0.0, stability=np.nan)))


recipe = EmbeddingShift()
