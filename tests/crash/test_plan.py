"""A store is continued under its own plan alone: each field that decides a number is part of its identity."""

from dataclasses import fields, replace

import pytest

from babelscope.activations_store import StoreWriter
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan, ModelRef
from tests.store.stores import ALL, make_plan, make_prompts

PROMPTS = make_prompts(2, ("en",))
PLAN = make_plan(PROMPTS)
PROVENANCE = ("source", "adapter")  # how the user named what the hashes identify

# Another value for each field that holds something else than strings and numbers; a new one must be added here.
OTHER = {"sites": PLAN.sites[:1], "positions": (ALL,)}


def another(record, name):
    value = getattr(record, name)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | str):
        return value + type(value)(1)
    return OTHER[name] if name in OTHER or not isinstance(value, tuple) else (*value, "another")


@pytest.fixture
def store(tmp_path):
    StoreWriter.create(tmp_path / "s.acts", PLAN, PROMPTS, {})
    return tmp_path / "s.acts"


@pytest.mark.parametrize("name", [f.name for f in fields(CapturePlan) if f.init and f.name != "model"])
def test_another_plan_is_refused_and_the_field_named(store, name):
    with pytest.raises(BabelScopeError, match=rf"plan: {name}\b"):
        StoreWriter.resume(store, replace(PLAN, **{name: another(PLAN, name)}))


@pytest.mark.parametrize("name", [f.name for f in fields(ModelRef) if f.name not in PROVENANCE])
def test_another_model_is_refused_and_the_field_named(store, name):
    with pytest.raises(BabelScopeError, match=rf"plan: model\.{name}\b"):
        StoreWriter.resume(store, replace(PLAN, model=replace(PLAN.model, **{name: another(PLAN.model, name)})))


@pytest.mark.parametrize("name", PROVENANCE)
def test_the_same_model_under_another_name_is_continued(store, name):
    plan = replace(PLAN, model=replace(PLAN.model, **{name: "another"}))
    assert StoreWriter.resume(store, plan).pending() == [("en", 0)]
