import pytest

from babelscope.errors import BabelScopeError
from babelscope.schema import Position


@pytest.mark.parametrize(
    "text", ["last", "first", "mean", "weighted-mean", "all", "segment:question", "answer", "words", "words:question"]
)
def test_a_position_reads_back_what_it_prints(text):
    assert str(Position.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["lastt", "-1", "segment", "segment:", "last:question", "answer:x", "words:", "mean:", ""]
)
def test_a_position_that_does_not_exist_is_refused_with_a_hint(text):
    with pytest.raises(BabelScopeError) as caught:
        Position.parse(text)
    assert caught.value.hint
