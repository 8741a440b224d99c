import numpy as np
import pytest

from babelscope.analyses.recipes.languages_in_general import LanguagesInGeneral
from babelscope.analyses.statistics import NOT_DISTINGUISHABLE, NOT_TESTABLE, SUPPORTED
from babelscope.analyses.study import make_study

from .planted import write_store

LANGUAGES = ("en", "de", "sw", "zh", "fr", "ru")


def table_of(path, shares, languages=LANGUAGES, by_group=(1.0, 1.0), **settings):
    """Items that each language shares to some extent, in two groups."""
    rng = np.random.default_rng(0)
    item = rng.normal(size=(1, 40, 48)) * np.repeat(by_group, 20)[None, :, None]
    x = np.array(shares)[:, None, None] * item + rng.normal(size=(2, len(languages), 40, 48))
    demand = ["a"] * 20 + ["b"] * 20
    store = write_store(path / "run.acts", {"resid.post": x.astype(np.float32)}, languages=languages, demand=demand)
    return LanguagesInGeneral(metrics="cs", **settings).run(make_study(store, n_boot=400))[0].table


def test_intervals_over_languages_are_wider_where_languages_differ(tmp_path):
    table = table_of(tmp_path, [2, 2, 0.2, 2, 0.2, 0.2])
    row = table[table["claim"].str.startswith("cs centered: gap")].iloc[0]
    low, high = (float(v) for v in row["claim"].rpartition("[")[2].rstrip("])").split(", "))
    assert row["high"] - row["low"] > 2 * (high - low)
    assert row["low"] < row["estimate"] < row["high"]


def test_a_gap_in_all_languages_holds_for_languages_in_general(tmp_path):
    table = table_of(tmp_path, [1.0] * 6)
    assert (table[table["claim"].str.contains("gap, items")]["verdict"] == SUPPORTED).all()


def test_fewer_than_four_languages_say_nothing_of_languages(tmp_path):
    table = table_of(tmp_path, [1.0] * 3, languages=LANGUAGES[:3])
    rows = table[table["claim"].str.contains("gap, items")]
    assert (rows["verdict"] == NOT_TESTABLE).all()
    assert rows["estimate"].notna().all()


def test_groups_are_equivalent_only_where_the_whole_interval_is_small(tmp_path):
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    same = table_of(tmp_path / "same", [1.0] * 6, smallest=0.2)
    rows = same[same["claim"].str.contains("differ by less")]
    assert (rows["verdict"] == SUPPORTED).all()
    assert (rows["low"] > -0.2).all()
    assert (rows["high"] < 0.2).all()
    other = table_of(tmp_path / "other", [1.0] * 6, by_group=(2.0, 0.3), smallest=0.2)
    centered = other[other["claim"].str.startswith("cs centered: gaps")].iloc[0]
    assert centered["verdict"] == NOT_DISTINGUISHABLE
    assert centered["p"] == pytest.approx(1, abs=0.2)
