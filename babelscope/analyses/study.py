"""What a recipe works on: a store, the items and languages that count, and its model where one is needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.plan import Marked, chosen_position, grouping, item_groups, unmarked
from babelscope.analyses.runner import Progress
from babelscope.errors import BabelScopeError
from babelscope.schema import Position, PromptSet, Site, expand_sites

if TYPE_CHECKING:
    from collections.abc import Callable

    from babelscope.activations_store import ActivationStore
    from babelscope.hooks import LoadedModel


@dataclass(frozen=True)
class Study:
    """Items that all of the languages have, in groups, and what is to be known about how they are compared.

    Parameters
    ----------
    store : ActivationStore
    languages : tuple of str
    groups : mapping
        Name of a group -> its items, in alphabetical order.
    by : str or None
        Covariate that formed the groups.
    position : Position
    sites : tuple of str or None
        Site expressions that were asked for; None for all that are stored.
    seed, n_boot, n_perm, jobs : int
    model_source : str or None
        Where the model is now; None for where the store says it was.
    items_left_out, items_marked : int
        Items that a language lacks, and those dropped for a value that was clipped or not finite.
    progress, note : callable
        Called with (done, total, what), and with lines for a log.
    """

    store: "ActivationStore"
    languages: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    by: str | None
    position: Position
    sites: tuple[str, ...] | None
    seed: int
    n_boot: int
    n_perm: int
    jobs: int
    model_source: str | None
    items_left_out: int
    items_marked: int
    progress: Progress
    note: "Callable[[str], None]"

    @property
    def items(self) -> tuple[str, ...]:
        """Items of all groups."""
        return tuple(item for items in self.groups.values() for item in items)

    @property
    def prompts(self) -> PromptSet:
        """Prompts of the items in the languages, in the order of both."""
        stored = self.store.prompts
        by_key = {(p.language, p.item): p for p in stored.prompts}
        chosen = tuple(by_key[language, item] for language in self.languages for item in self.items)
        return PromptSet(stored.name, chosen, stored.source)

    def layers(self, name: str) -> list[Site]:
        """Stored sites of a name, of the layers that were asked for.

        Raises
        ------
        BabelScopeError
            If there are none.
        """
        stored = [s for s in self.store.plan.sites if s.name == name]
        if self.sites is not None:
            depths = self.store.plan.model.depths
            asked = {s for text in self.sites if text.split("@")[0] == name for s in expand_sites([text], depths)}
            stored = [s for s in stored if s in asked]
        if not stored:
            raise BabelScopeError(f"{self.store.path} holds no {name}", f"capture again with --site {name}")
        return stored

    def block(
        self, site: Site | str, *, items: Sequence[str] | None = None, position: str | None = None
    ) -> NDArray[np.generic]:
        """One site and layer, (language, item, *unit); items in the order asked for, all of the study's without."""
        chosen = self.items if items is None else tuple(items)
        where = str(self.position) if position is None else position
        return self.store.select(str(site), languages=self.languages, items=chosen, position=where).numpy()

    @cached_property
    def model(self) -> "LoadedModel":
        """The model of the store, loaded where it is asked for first.

        Raises
        ------
        BabelScopeError
            If it cannot be loaded, or is not the model that was captured.
        """
        from babelscope import hooks  # torch is imported here and not before

        ref = self.store.plan.model
        source = self.model_source or ref.source
        if ref.chat_template_sha256:
            raise BabelScopeError(
                f"{self.store.path} was captured through a chat template, which recipes do not apply",
                "capture the prompts as they stand, or leave out recipes that need the model",
            )
        loaded = hooks.load_model(
            source, revision=ref.revision or None, dtype=ref.dtype, adapter=ref.adapter or None,
            merge_adapter=ref.adapter_merged, quantize=ref.quantization or None,
        )  # fmt: skip
        for name in ("weights_sha256", "adapter_sha256"):
            if getattr(loaded.ref, name) != getattr(ref, name):
                raise BabelScopeError(
                    f"{source} is not the model of {self.store.path}: {name} differs",
                    "name the model that was captured with --model",
                )
        return loaded

    def provenance(self) -> dict[str, Any]:
        """What every table of the study says about its origin."""
        return {
            "store": self.store.fingerprint, "version": version("babelscope"), "seed": self.seed,
            "n_boot": self.n_boot, "n_perm": self.n_perm, "languages": self.languages,
            "groups": {name: len(items) for name, items in self.groups.items()}, "by": self.by,
            "position": str(self.position), "items_left_out": self.items_left_out, "items_marked": self.items_marked,
            "unit": "item",
        }  # fmt: skip


def make_study(
    store: "ActivationStore", *, sites: Sequence[str] | None = None, languages: Sequence[str] | None = None,
    position: str | None = None, by: str | None = "auto", marked: Marked = "refuse", seed: int = 0, n_boot: int = 2000,
    n_perm: int = 2000, jobs: int = 1, model: str | None = None, progress: Progress | None = None,
    note: "Callable[[str], None]" = lambda _: None,
) -> Study:  # fmt: skip
    """A study of a store.

    Parameters
    ----------
    store, sites, languages, position, by, marked, seed, n_boot, n_perm, jobs, progress
        As in `analyze`.
    model : str, optional
        Where the model is now.
    note : callable
        Called with lines for a log.

    Raises
    ------
    BabelScopeError
        For unknown names, and groups of fewer than four items.
    """
    at = chosen_position(store, position)
    spoken = tuple(dict.fromkeys(languages)) if languages is not None else tuple(store.languages)
    common = store.select(str(store.plan.sites[0]), languages=spoken, position=str(at)).items
    items = unmarked(store, common, spoken, marked)
    covariate = grouping(store, items, by)
    return Study(
        store=store, languages=spoken, groups=item_groups(store, items, covariate), by=covariate, position=at,
        sites=None if sites is None else tuple(sites), seed=seed, n_boot=n_boot, n_perm=n_perm, jobs=jobs,
        model_source=model, items_left_out=len(store.items) - len(common), items_marked=len(common) - len(items),
        progress=progress or (lambda done, total, what: None), note=note,
    )  # fmt: skip
