import importlib.metadata

import pytest

from babelscope import plugins
from babelscope.errors import BabelScopeError


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_file_in_a_plugin_package_loads_as_what_it_claims_to_be(kind):
    found = plugins.names(kind)
    assert found or kind == "loader"
    for name in found:
        assert plugins.load(kind, name) is not None


def test_an_unknown_name_is_refused_with_the_nearest_and_the_listing():
    with pytest.raises(BabelScopeError) as caught:
        plugins.load("metric", "naoo")
    assert "nao" in caught.value.hint
    assert "cli.py ls metrics" in caught.value.hint


def test_a_distribution_outside_registers_through_an_entry_point(monkeypatch):
    point = importlib.metadata.EntryPoint("theirs", "collections:OrderedDict", "babelscope.metric")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == "babelscope.metric" else [])
    assert "theirs" in plugins.names("metric")
    assert plugins.load("metric", "theirs").__name__ == "OrderedDict"
