import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.errors import BabelScopeError
from babelscope.schema import SITE_KINDS, Site, expand_sites

kinds = st.sampled_from(sorted(SITE_KINDS))


@given(kinds, st.integers(0, 200), st.sampled_from(["", "enc", "dec"]))
def test_a_site_reads_back_what_it_prints(kind, layer, stack):
    site = Site(kind, layer if SITE_KINDS[kind].per_layer else None, stack)
    assert Site.parse(str(site)) == site


def test_an_expression_without_layers_means_all_of_them():
    assert [s.layer for s in expand_sites(["resid.post"], 3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "layers"), [("mlp.act@1", [1]), ("mlp.act@-1", [7]), ("mlp.act@5,0", [0, 5]), ("mlp.act@2:4", [2, 3])]
)
def test_layers_can_be_picked(text, layers):
    assert [s.layer for s in expand_sites([text], 8)] == layers


def test_a_site_named_twice_is_kept_once():
    assert len(expand_sites(["resid.post@0", "resid.post"], 2)) == 2


@pytest.mark.parametrize("text", ["mlp.act@8", "mlp.act@-9", "mlp.act@x", "mlp.act@9:12", "embed@0", "mlp.acts", ""])
def test_a_site_that_does_not_exist_is_refused_with_a_hint(text):
    with pytest.raises(BabelScopeError) as caught:
        expand_sites([text], 8)
    assert caught.value.hint


def test_the_nearest_site_is_suggested():
    with pytest.raises(BabelScopeError, match=r"'resid\.pots'") as caught:
        expand_sites(["resid.pots"], 4)
    assert "resid.post" in caught.value.hint
