import shutil
from collections import OrderedDict

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


def test_a_distribution_outside_registers_through_an_entry_point_when_it_is_installed(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    assert "theirs" not in plugins.names("metric")
    install(tmp_path / "theirs-1.0.dist-info", "[babelscope.metric]\ntheirs = collections:OrderedDict\n")
    assert "theirs" in plugins.names("metric")
    assert "theirs" not in plugins.names("probe")
    assert plugins.load("metric", "theirs") is OrderedDict
    shutil.rmtree(tmp_path / "theirs-1.0.dist-info")
    assert "theirs" not in plugins.names("metric")


def install(folder, points):
    """The metadata that pip would write, appearing at once as pip has it."""
    made = folder.with_suffix(".tmp")
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text(points)
    made.rename(folder)
