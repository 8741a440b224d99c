"""What a metric declares, and the measures that it puts into the pair engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.joint import JointOverlap
from babelscope.analyses.statistics import Floats

# Sites with one vector per item.
VECTOR_SITES = frozenset(
    {"embed", "resid.pre", "resid.post", "attn.out", "mlp.out", "attn.heads", "mlp.act", "mlp.neurons"}
)

Sweep: TypeAlias = Mapping[str, Sequence[float]]


class Similarity(Protocol):
    """Similarity of every item of one block to every item of another.

    Called with arrays of shape (..., item, unit), it returns float64 of shape (..., item of a, item of b), NaN where
    the similarity is undefined. Leading axes broadcast.
    """

    highest: ClassVar[float]
    """The value that identical rows reach."""

    centered_in_sample: ClassVar[bool]
    """Whether the mean over the same items is removed, which pushes the null mean down by matched / (item - 1)."""

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> NDArray[np.float64]:
        """(..., item, unit) twice -> (..., item, item)."""
        ...


@runtime_checkable
class BlockSimilarity(Similarity, Protocol):
    """A similarity with a step for all languages of a block: a scale that they share, rows that are scaled once."""

    def prepare(self, x: NDArray[np.generic], /) -> Callable[[int, slice], Floats]:
        """From (language, item, unit), the similarities of one language to others: (language, item, item)."""
        ...


class SetSimilarity(Protocol):
    """Similarity of two languages over the same items, that no single item has: CKA, RSA, correlations over items."""

    highest: ClassVar[float]
    """The value that identical sets reach."""

    def prepare(self, x: NDArray[np.generic], /) -> Any:
        """What is computed once per language, from (item, unit); rows are finite, and four or more."""
        ...

    def compare(self, a: Any, b: Any, /) -> tuple[float, Floats]:
        """The value of two prepared languages, and the value without each item, (item,); NaN where undefined."""
        ...

    def shuffled(self, a: Any, b: Any, order: NDArray[np.int32], /) -> Floats:
        """The value when item i of `a` stands beside item order[p, i] of `b`: (permutation, item) -> (permutation,)."""
        ...


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a reader needs to know about a metric before reading a number of it.

    Parameters
    ----------
    title, units : str
    low, high : float
        Bounds of the values.
    reads : frozenset of str
        Site kinds it accepts.
    source : str
        Paper and section of the published definition.
    parameters : mapping
        Default parameters.
    sweepable : tuple of str
        Parameters that `--sweep` accepts.
    paper_site, paper_position : str
        What the published definition reads; the `paper` mode exists there alone, and nowhere without a site.
    per_head : bool
        Whether every head is scored by itself, at sites that have heads.
    """

    title: str
    units: str
    low: float
    high: float
    reads: frozenset[str]
    source: str
    parameters: Mapping[str, float | str] = field(default_factory=lambda: MappingProxyType({}))
    sweepable: tuple[str, ...] = ()
    paper_site: str = ""
    paper_position: str = "last"
    per_head: bool = False


@dataclass(frozen=True, slots=True)
class PairMeasure:
    """One similarity of the pair engine, and the name and threshold under which its rows appear."""

    variant: str
    similarity: Similarity
    threshold: float = float("nan")


@dataclass(frozen=True, slots=True)
class SetMeasure:
    """The same for a similarity that belongs to the whole set of items."""

    variant: str
    similarity: SetSimilarity
    threshold: float = float("nan")


@dataclass(frozen=True, slots=True)
class PaperMean:
    """A published definition that is the mean over language pairs of one of the metric's own measures."""

    variant: str
    of: str


class Metric(Protocol):
    """A frozen set of parameters that turns into measures."""

    info: ClassVar[MetricInfo]

    def measures(self, sweep: Sweep) -> tuple[PairMeasure, ...] | tuple[SetMeasure, ...]:
        """The corrected, pairwise measures; one per variant and swept value, all of one kind."""
        ...

    def paper(self, sweep: Sweep) -> PaperMean | JointOverlap | None:
        """The published definition; None where there is none."""
        ...
