import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.analyses.grid import parse_sweep
from babelscope.errors import BabelScopeError


def test_a_range_includes_its_end_and_holds_the_numbers_as_typed():
    name, values = parse_sweep("threshold=0.1:0.9:0.05")
    assert name == "threshold"
    assert values == tuple(round(0.1 + 0.05 * i, 2) for i in range(17))
    assert values[6] == 0.4


def test_a_range_stops_before_an_end_that_it_does_not_reach():
    assert parse_sweep("top=0.1:0.35:0.1")[1] == (0.1, 0.2, 0.3)


def test_a_list_is_sorted_and_says_each_value_once():
    assert parse_sweep(" threshold = 0.4, 0.1,0.40 ") == ("threshold", (0.1, 0.4))


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 60))
def test_every_value_is_the_float_nearest_to_its_decimal(first, step, count):
    last = first + step * count
    values = parse_sweep(f"t={first / 100}:{last / 100}:{step / 100}")[1]
    assert values == tuple((first + step * i) / 100 for i in range(count + 1))


@pytest.mark.parametrize(
    "text",
    ["0.1:0.9:0.05", "threshold=", "=0.1", "threshold=a", "threshold=0.1:0.9", "threshold=0.9:0.1:0.1", "t=0:1:0",
     "t=0:1:-0.1", "t=nan", "t=0:inf:1", "t=0:1:0.0001", "t=0.1,,0.2"],
)  # fmt: skip
def test_what_is_no_grid_is_refused_with_the_way_to_write_one(text):
    with pytest.raises(BabelScopeError) as caught:
        parse_sweep(text)
    assert caught.value.hint
    assert repr(text) in caught.value.problem
