"""Whether languages that are related, alike in grammar, or written alike are also alike to a model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from babelscope.analyses.behavior.scorings import scored
from babelscope.analyses.item_gaps import ItemGaps, group_places, item_gaps
from babelscope.analyses.pairs import language_pairs
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import Floats, benjamini_hochberg, mean_of_defined, share, stream, verdicts
from babelscope.analyses.study import Study
from babelscope.analyses.typology import FEWEST_LANGUAGES, DyadCorrelation, complete, dyad_correlation
from babelscope.datasets.language_pairs import parts_of
from babelscope.datasets.typology import LanguageType, language_types, typological_distance
from babelscope.errors import BabelScopeError
from babelscope.schema import Result

# Predictors, and what each is given.
PREDICTORS = {
    "typological distance": ("distance", None),
    "typological distance, given script": ("distance", "same_script"),
    "same family": ("same_family", None),
    "same script": ("same_script", None),
}
BEHAVIORS = ("excess", "kappa")


class _Curve(NamedTuple):
    """Values of pairs, (layer, pair); the last row is what the claim is about."""

    claim: str
    site: str
    layers: tuple[int | None, ...]
    values: Floats
    n_items: int


@dataclass(frozen=True, slots=True)
class Typology:
    """Rank correlation over language pairs of similarity, and of transfer, with how far apart languages are.

    Parameters
    ----------
    metrics : str
        Comma-separated names; "" for those that the store can feed.
    """

    metrics: str = ""

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Typology",
        question="Are languages that are related, alike in grammar or written alike closer to each other?",
        reads=(),
        needs_model=False,
        source="Mantel 1967; Dekker, Krackhardt and Snijders 2007, Psychometrika 72; facts as in WALS and Glottolog",
    )

    def run(self, study: Study) -> list[Result]:
        """`typology`: claims over layers; `typology_layers`: each layer; `typology_pairs`: the values of all pairs.

        Raises
        ------
        BabelScopeError
            If fewer than two languages are in the table, or a metric gives no gap per item.
        """
        known = _known(study)
        rows, layers, pairs = [], [], list[pd.DataFrame]()
        names = [name.strip() for name in self.metrics.split(",") if name.strip()]
        curves = _Curves(study, known)
        for group, curve in curves.all(item_gaps(study, names, self.info.title)):
            found = _correlations(study, known, curve, group)
            pairs.append(_pair_table(study, known, curve, group))
            for name, of in found.items():
                place = {"measure": curve.claim, "predictor": name, "group": group, "site": curve.site}
                cells = [
                    {**place, "layer": x, "n": curve.n_items, "n_languages": of.n_languages, **_cells(of, i)}
                    for i, x in enumerate(curve.layers)
                ]
                rows.append({"claim": f"{curve.claim} and {name}", **cells[-1]})
                layers += cells if len(cells) > 1 else []
        table = _judged(pd.DataFrame(rows), [])
        results = {
            "": claims_table({str(k): v for k, v in row.items()} for row in table.to_dict("records")),
            "_pairs": pd.concat(pairs, ignore_index=True),
        }
        if layers:
            results["_layers"] = _judged(pd.DataFrame(layers), ["measure", "predictor", "group", "site"]).astype(
                {"layer": "Int64"}
            )
        return [Result(f"typology{name}", made, self._about(study, known)) for name, made in results.items()]

    def _about(self, study: Study, known: Mapping[int, LanguageType]) -> dict[str, Any]:
        return {
            **study.provenance(), "title": self.info.title,
            "not_in_the_table": [g for i, g in enumerate(study.languages) if i not in known],
            "distance": "share of differing features among those known of both languages",
            "estimate": "Spearman over pairs of languages; given script: partial",
            "interval": "jackknife over languages, 95%",
            "p": "languages of the predictor relabeled, two-sided: all up to seven languages, else random, add-one "
            "rule; given script: double semi-partialing",
            "p_max": "of a layer among all layers of its curve", "p_naive": "as if pairs were independent: not valid",
            "null": "0: no correlation", "q": "Benjamini-Hochberg over all claims; over the layers of a curve",
            "unit": "language", "fewest_languages": FEWEST_LANGUAGES,
        }  # fmt: skip


def _known(study: Study) -> dict[int, LanguageType]:
    """Languages of the table by their place in the study; a code may name another script, as `zh-Hant`, or a region."""
    types = language_types()
    found = {}
    for place, code in enumerate(study.languages):
        plain, *more = code.replace("_", "-").split("-")
        if parts_of(code) is None and plain in types:
            script = next((part for part in more if len(part) == 4), types[plain].script)
            found[place] = replace(types[plain], script=script)
    if len(found) < 2:
        raise BabelScopeError(
            f"the typology knows {len(found)} of the languages {', '.join(study.languages)}",
            f"it has {', '.join(types)}",
        )
    if len(found) < FEWEST_LANGUAGES:
        study.note(f"typology needs {FEWEST_LANGUAGES} languages of its table: {len(found)} are not testable")
    return found


class _Curves:
    """Gaps of every metric by layer and their mean, then what is known of behavior."""

    def __init__(self, study: Study, known: Mapping[int, LanguageType]) -> None:
        self.study, self.known = study, known

    def all(self, gaps: Iterator[ItemGaps]) -> Iterator[tuple[str, _Curve]]:
        for of in gaps:
            layers = sorted(x for x in of.by_layer if x is not None)
            order: list[int | None] = [*layers, None]
            values = np.stack([mean_of_defined(of.by_layer[x]) for x in order])
            n = next(iter(of.by_layer.values())).shape[1]
            yield of.group, _Curve(f"{of.metric} {of.variant}: gap", of.site, tuple(order), values, n)
        answers = _answers(self.study)
        if answers is None:
            return
        correct, chance = answers
        for group, places in group_places(self.study).items():
            found = pair_behavior(correct[:, places], language_pairs(len(correct)), chance)
            for name in BEHAVIORS:
                yield group, _Curve(f"answers: {name}", "", (None,), found[name][None], len(places))


def pair_behavior(correct: Floats, pairs: list[tuple[int, int]], chance: float) -> dict[str, Floats]:
    """`excess` of XLTR, the mean of both directions, and Cohen's `kappa` of being right, (pair,) each.

    NaN where nothing is right in a language (excess), or all is right or all wrong in both (kappa).
    """
    excess, kappa = np.full((2, len(pairs)), np.nan)
    for k, (i, j) in enumerate(pairs):
        both = ~np.isnan(correct[i]) & ~np.isnan(correct[j])
        a, b = correct[i, both], correct[j, both]
        if not both.any():
            continue
        right = (a * b).mean()
        moved = share(right, np.array(a.mean())) - b.mean() + share(right, np.array(b.mean())) - a.mean()
        excess[k] = moved / 2 / (1 - chance)
        expected = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
        kappa[k] = share((a == b).mean() - expected, np.array(1 - expected))
    return {"excess": excess, "kappa": kappa}


def _answers(study: Study) -> tuple[Floats, float] | None:
    """(language, item) of being right, and chance; None where the store does not know."""
    try:
        answers = scored(study.store)
    except BabelScopeError as error:
        study.note(f"typology leaves out behavior: {error.problem}")
        return None
    wide = answers.pivot(index="language", columns="item", values="correct")
    correct: Floats = wide.reindex(index=list(study.languages), columns=list(study.items)).to_numpy(np.float64)
    return correct, float((1 / answers.drop_duplicates("item")["n_options"]).mean())


def _square(values: Floats, n: int) -> Floats:
    """(row, pair) as symmetric matrices, NaN in the diagonal."""
    a, b = np.array(language_pairs(n)).T
    made = np.full((len(values), n, n), np.nan)
    made[:, a, b] = made[:, b, a] = values
    return made


def _predictors(types: list[LanguageType]) -> dict[str, Floats]:
    pairs = [(types[a], types[b]) for a, b in language_pairs(len(types))]
    return {
        "distance": np.array([typological_distance(a, b) for a, b in pairs]),
        **{f"same_{name}": np.array([float(getattr(a, name) == getattr(b, name)) for a, b in pairs])
           for name in ("family", "genus", "script")},
    }  # fmt: skip


def _correlations(
    study: Study, known: Mapping[int, LanguageType], curve: _Curve, group: str
) -> dict[str, DyadCorrelation]:
    """Correlations of a curve with every predictor, over languages of which everything is defined."""
    places, types = np.array(list(known)), list(known.values())
    values = _square(curve.values, len(study.languages))[:, places[:, None], places]
    distances = _square(_predictors(types)["distance"][None], len(types))
    kept = complete(np.concatenate([values, distances]))
    pairs = language_pairs(len(kept))
    a, b = np.array(pairs).reshape(-1, 2).T
    rows = values[:, kept[a], kept[b]]
    predictors = _predictors([types[i] for i in kept])
    found = {}
    for name, (column, given) in PREDICTORS.items():
        rng = stream(study.seed, "typology", group, name)
        found[name] = dyad_correlation(
            rows, predictors[column], pairs, n_perm=study.n_perm, rng=rng,
            given=None if given is None else predictors[given],
        )  # fmt: skip
    return found


def _cells(of: DyadCorrelation, row: int) -> dict[str, Any]:
    names = ("estimate", "low", "high", "p", "p_max", "p_naive")
    return {"null": 0.0, **{name: float(getattr(of, name)[row]) for name in names}}


def _judged(table: pd.DataFrame, family: list[str]) -> pd.DataFrame:
    """With q within a family, and verdicts whose sample are languages."""
    groups = table.groupby(family)["p"] if family else table["p"]
    q = groups.transform(benjamini_hochberg) if family else benjamini_hochberg(table["p"])
    words = verdicts(table["estimate"], table["low"], table["high"], q, table["n_languages"])
    return table.assign(q=q, verdict=words)


def _pair_table(study: Study, known: Mapping[int, LanguageType], curve: _Curve, group: str) -> pd.DataFrame:
    """Every pair of known languages: its value in the last row of a curve beside all predictors."""
    spoken = [study.languages[i] for i in known]
    places = list(known)
    values = _square(curve.values[-1:], len(study.languages))[0]
    pairs = language_pairs(len(places))
    return pd.DataFrame({
        "measure": curve.claim, "group": group, "site": curve.site,
        "language_a": [spoken[a] for a, _ in pairs], "language_b": [spoken[b] for _, b in pairs],
        "value": [values[places[a], places[b]] for a, b in pairs], **_predictors(list(known.values())),
    })  # fmt: skip


recipe = Typology()
