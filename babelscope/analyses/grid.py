"""The text of a sweep, `threshold=0.1:0.9:0.05`, as the values that it means."""

from decimal import Decimal, InvalidOperation

from babelscope.errors import BabelScopeError

HINT = "write threshold=0.1:0.9:0.05 (first:last:step, last included) or threshold=0.1,0.4"
MOST_VALUES = 1000


def parse_sweep(text: str) -> tuple[str, tuple[float, ...]]:
    """The parameter and its values, increasing and without repetition.

    Decimal arithmetic: `0.1:0.9:0.05` ends at exactly 0.9 and holds 0.4, not 0.40000000000000002.

    Raises
    ------
    BabelScopeError
        If the text is not `name=first:last:step` or `name=value,value,...`.
    """
    name, equals, grid = (part.strip() for part in text.partition("="))
    if not equals or not name or not grid:
        raise BabelScopeError(f"sweep {text!r} is not a parameter and its grid", HINT)
    values = _range(text, grid) if ":" in grid else [_number(text, part) for part in grid.split(",")]
    return name, tuple(float(v) for v in sorted(set(values)))


def _range(text: str, grid: str) -> list[Decimal]:
    parts = grid.split(":")
    if len(parts) != 3:
        raise BabelScopeError(f"sweep {text!r}: a range has three numbers, this one has {len(parts)}", HINT)
    first, last, step = (_number(text, part) for part in parts)
    if step <= 0:
        raise BabelScopeError(f"sweep {text!r}: the step {step} is not positive", HINT)
    if last < first:
        raise BabelScopeError(f"sweep {text!r}: the last value {last} lies below the first, {first}", HINT)
    count = int((last - first) / step) + 1
    if count > MOST_VALUES:
        raise BabelScopeError(f"sweep {text!r} has {count} values, more than {MOST_VALUES}", "take a larger step")
    return [first + i * step for i in range(count)]


def _number(text: str, part: str) -> Decimal:
    try:
        value = Decimal(part.strip())
    except InvalidOperation:
        raise BabelScopeError(f"sweep {text!r}: {part.strip()!r} is not a number", HINT) from None
    if not value.is_finite():
        raise BabelScopeError(f"sweep {text!r}: {part.strip()!r} is not a finite number", HINT)
    return value
