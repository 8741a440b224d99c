"""Floors of an analysis: the prompts of a store through a model of the same configuration with random weights."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from babelscope.activations_store import ActivationStore
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError
from babelscope.schema import Site
from babelscope.workflows.captures import capture
from babelscope.workflows.signals import Note, Progress


@contextmanager
def untrained_store(study: Study, progress: Progress | None, note: Note) -> Iterator[ActivationStore]:
    """The captured sites of the study's position in a model with random weights; gone when the context ends.

    Raises
    ------
    BabelScopeError
        If the model of the store cannot be loaded, or is more than its configuration, or the store has no texts.
    """
    from babelscope.hooks.random_init import random_init

    plan = study.store.plan
    untrained = random_init(study.model, study.seed)
    note(f"floor: {untrained.ref.source}")
    # Beside the store, where there was room for as much: a folder of the system may lie in memory.
    with tempfile.TemporaryDirectory(prefix=".random-init-", dir=study.store.path.absolute().parent) as folder:
        found = capture(
            Path(folder) / "random-init.acts", model=untrained, prompts=study.store.prompts,
            sites=[str(site) for site in _asked(study)], positions=[str(study.position)], answers="none",
            decoder=plan.decoder or "start", store_dtype=plan.dtype, on_overflow="clip", self_test=False,
            progress=progress,
        )  # fmt: skip
        assert isinstance(found, ActivationStore), "a dry run was not asked for"
        yield found


def _asked(study: Study) -> tuple[Site, ...]:
    names = dict.fromkeys(site.name for site in study.store.plan.sites)
    if study.sites is not None:
        names = dict.fromkeys(text.split("@")[0] for text in study.sites)
    found = tuple(site for name in names for site in study.layers(name))
    if not found:
        raise BabelScopeError(f"{study.store.path} holds no site that was asked for", "name one that it holds")
    return found
