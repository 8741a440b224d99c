"""Whether a state of one language answers a prompt of another: the last token's residual stream, patched by layer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.active import has_finite_rows
from babelscope.analyses.directed import directed_verdicts
from babelscope.analyses.patching import Pairing, follows, language_said, two_sources
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    EXPLAINED,
    MIN_ITEMS,
    SUPPORTED,
    benjamini_hochberg,
    bootstrap_weights,
    stream,
)
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, Result, Site

if TYPE_CHECKING:
    from babelscope.hooks import LoadedModel

SITE = "resid.post"
MEAN = "mean"  # of the languages other than that of the prompt

FROM_OTHER = "answers follow a state of another language"
FROM_SAME = "answers follow a state of the same language"
FROM_MEAN = "answers follow the mean state of the other languages"
MEAN_OR_ONE = "the mean state is followed rather than that of one language"
SPOKEN = "followed answers are in the language of the prompt rather than of the state"


@dataclass(frozen=True, slots=True)
class LanguagePatching:
    """Patches of the residual stream between prompts of different items, languages and layers."""

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Language patching",
        question="Does a state from one language give its answer in a prompt of another?",
        reads=(SITE,),
        needs_model=True,
        source="Dumas et al. 2024, arXiv:2411.08745; the null of mismatched items is ours",
    )

    def run(self, study: Study) -> list[Result]:
        """`language_patching`: over pairs of languages, layer by layer; `_pairs`: each pair.

        Raises
        ------
        BabelScopeError
            Without two languages, or with too few items that the model answers in all of them.
        """
        if len(study.languages) < 2:
            raise BabelScopeError("one language has no state of another", "name two or more with --languages")
        sites = study.layers(SITE)
        groups = [_Group(study, name, items) for name, items in study.groups.items()]
        claims, pairs = list[dict[str, Any]](), list[dict[str, Any]]()
        for done, site in enumerate(sites, start=1):
            for group in groups:
                found = group.patched(site)
                claims += group.claims(site, found)
                pairs += group.pairs(site, found)
            study.progress(done, len(sites), f"language-patching {site}")
        about = {
            **study.provenance(), "title": self.info.title, "position": "last",
            "answers": {g.name: "letters" if g.lettered else "words" for g in groups},
            "n_dropped": {g.name: g.n_dropped for g in groups},
            "answer": "the likeliest of the tokens that begin the right answers of the group in all languages",
            "null": "another item's state in the same prompt, counted as an answer of this source",
            "interval": "bootstrap over items of the difference from the null, drawn around the null, 95%",
            "p": "the two shares of an item swapped, item by item, two-sided",
        }  # fmt: skip
        table = pd.DataFrame(pairs)
        table["q"] = table.groupby("group")["p"].transform(benjamini_hochberg)
        lettered = {g.name for g in groups if g.lettered}
        return [
            Result("language_patching", _judged(claims, lettered), about),
            Result("language_patching_pairs", table, about),
        ]


def _judged(rows: Sequence[Mapping[str, Any]], lettered: set[str]) -> pd.DataFrame:
    table = claims_table(rows, family=("claim",))
    words = directed_verdicts(table)
    # A letter is the same in every language: a state that holds nothing else would do.
    letters = (words == SUPPORTED) & table["group"].isin(lettered)
    table["verdict"] = words.mask(letters, EXPLAINED)
    return table


class _Group:
    """Items of a group that the model answers in every language, each with two sources of states."""

    def __init__(self, study: Study, name: str, items: Sequence[str]) -> None:
        from babelscope.hooks.interventions.patching import gold_tokens

        self.study, self.name = study, name
        self.loaded: LoadedModel = study.model
        by_key = {(p.language, p.item): p for p in study.prompts.prompts}
        prompts = {g: [by_key[g, item] for item in items] for g in study.languages}
        self.lettered = all(p.letters for ps in prompts.values() for p in ps)
        golds = {g: [gold_tokens(self.loaded, p) for p in ps] for g, ps in prompts.items()}
        self.tokens = tuple(sorted(frozenset().union(*(tokens for own in golds.values() for tokens in own))))
        if not self.tokens:
            raise BabelScopeError(
                f"group {name!r} has no answers", "language-patching needs gold options or answers as text"
            )
        known = np.all([self._knows(ps, golds[g]) for g, ps in prompts.items()], axis=0)
        # What the model does not answer is not in its state, and nothing could follow from it.
        self.n_dropped = int((~known).sum())
        if known.sum() < MIN_ITEMS:
            raise BabelScopeError(
                f"group {name!r}: {known.sum()} items are answered in all of {', '.join(study.languages)}, fewer than "
                f"{MIN_ITEMS}",
                "leave out languages that the model answers in worst with --languages, or capture more items",
            )
        self.items = tuple(item for item, k in zip(items, known, strict=True) if k)
        self.prompts = {g: [p for p, k in zip(ps, known, strict=True) if k] for g, ps in prompts.items()}
        self.golds = {g: [t for t, k in zip(ts, known, strict=True) if k] for g, ts in golds.items()}
        self.answers = self._of(study.languages)
        self.sources = two_sources(self.answers, stream(study.seed, "patching", name))
        self.weights = bootstrap_weights(len(self.items), study.n_boot, stream(study.seed, "bootstrap", name))

    def _of(self, languages: Sequence[str]) -> list[frozenset[int]]:
        """Tokens of each item's answer in any of some languages."""
        return [frozenset().union(*own) for own in zip(*(self.golds[g] for g in languages), strict=True)]

    def _said(
        self, prompts: Sequence[Prompt], site: Site | None = None, rows: NDArray[np.generic] | None = None
    ) -> NDArray[np.int64]:
        from babelscope.hooks.interventions.patching import token_logits

        logits = token_logits(self.loaded, prompts, self.tokens, site, rows)
        said = np.array(self.tokens)[np.nan_to_num(logits, nan=-np.inf).argmax(axis=1)]
        return np.where(np.isfinite(logits).all(axis=1), said, -1)

    def _knows(self, prompts: Sequence[Prompt], golds: Sequence[frozenset[int]]) -> list[bool]:
        return [token in gold for token, gold in zip(self._said(prompts), golds, strict=True)]

    def patched(self, site: Site) -> dict[tuple[str, str], NDArray[np.int64]]:
        """Tokens said, (item, source), by language of the state (or `MEAN`) and of the prompt."""
        languages = self.study.languages
        states = np.asarray(self.study.block(site, items=self.items, position="last"), dtype=np.float64)
        found = {}
        for b in languages:
            others = [k for k, g in enumerate(languages) if g != b]
            means = {MEAN: states[others].mean(axis=0)} if len(others) > 1 else {}
            for a, rows in {**dict(zip(languages, states, strict=True)), **means}.items():
                found[a, b] = np.stack([self._with(site, b, rows, self.sources[:, s]) for s in (0, 1)], axis=1)
        return found

    def _with(
        self, site: Site, language: str, rows: NDArray[np.floating], sources: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        said = np.full(len(self.items), -1, dtype=np.int64)
        at = np.flatnonzero((sources >= 0) & has_finite_rows(rows[sources]))
        if len(at):
            said[at] = self._said([self.prompts[language][i] for i in at], site, rows[sources[at]])
        return said

    def _follows(self, said: NDArray[np.int64]) -> Pairing:
        return Pairing(*follows(said, self.sources, self.answers))

    def _spoken(self, said: NDArray[np.int64], a: str, b: str) -> Pairing:
        others = [g for g in self.study.languages if g != b] if a == MEAN else [a]
        return Pairing(*language_said(said, self.sources, self.golds[b], self._of(others)))

    def _columns(self, pairing: Pairing) -> Mapping[str, float]:
        return pairing.columns(self.weights, self.study.n_perm, stream(self.study.seed, "patching p", self.name))

    def claims(self, site: Site, found: Mapping[tuple[str, str], NDArray[np.int64]]) -> Iterator[dict[str, Any]]:
        """Rows over pairs of languages."""
        kinds = {
            FROM_OTHER: [key for key in found if key[0] not in (MEAN, key[1])],
            FROM_SAME: [key for key in found if key[0] == key[1]],
            FROM_MEAN: [key for key in found if key[0] == MEAN],
        }
        over = {
            claim: Pairing.over([self._follows(found[key]) for key in keys]) for claim, keys in kinds.items() if keys
        }
        if FROM_MEAN in over:
            over[MEAN_OR_ONE] = Pairing(over[FROM_MEAN].share, over[FROM_OTHER].share)
        over[SPOKEN] = Pairing.over([self._spoken(found[key], *key) for key in kinds[FROM_OTHER]])
        for claim, pairing in over.items():
            yield {
                "claim": claim, "group": self.name, "site": site.name, "layer": site.layer, "language_a": "*",
                "language_b": "*", **self._columns(pairing),
            }  # fmt: skip

    def pairs(self, site: Site, found: Mapping[tuple[str, str], NDArray[np.int64]]) -> Iterator[dict[str, Any]]:
        """Rows of each pair: a state of one language, a prompt of the other."""
        for (a, b), said in found.items():
            spoken = self._spoken(said, a, b)
            yield {
                "group": self.name, "layer": site.layer, "language_state": a, "language_prompt": b,
                **self._columns(self._follows(said)),
                "in_language_of_prompt": _mean(spoken.share), "in_language_of_state": _mean(spoken.beside),
                "n_spoken": int(np.count_nonzero(~np.isnan(spoken.share))),
            }  # fmt: skip


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


recipe = LanguagePatching()
