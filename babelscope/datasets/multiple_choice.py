"""What the generators of multiple-choice problems share: unrepeated problems and prompts in every language."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, asdict, fields
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from babelscope.datasets.dataset import Split, item_ids
from babelscope.datasets.shell import Letters, Task, in_shell
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import PromptSet
from babelscope.schema.prompts import Scalar

Compat = Literal["corrected", "paper"]

# A test problem that was shown before is drawn again this often; when none of so many is new, hardly any can be left.
REDRAWS = 2000


class Problem(Protocol):
    """A problem without a language: what it shows, and which option is right."""

    @property
    def shown(self) -> str:
        """What identifies the problem to a reader; decides the split."""
        ...

    @property
    def gold(self) -> int:
        """Index of the right option."""
        ...


class Recipe(Protocol):
    """A dataset's dataclass, as far as its prompts depend on it."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def seed(self) -> int:
        """What the random numbers depend on."""
        ...

    @property
    def split(self) -> Split:
        """The split of all its problems."""
        ...

    @property
    def letters(self) -> Letters:
        """The option letters."""
        ...


P = TypeVar("P", bound=Problem)


def check_choice(field: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value of a field that has only a few; BabelScopeError names them."""
    if value not in known:
        raise unknown_name(field, value, known)


def check_fields(split: str, letters: str, compat: str) -> None:
    """Refuse fields of a recipe that mean nothing."""
    check_choice("split", split, ("train", "test"))
    check_choice("kind of option letters", letters, ("latin", "native"))
    check_choice("construction", compat, ("corrected", "paper"))


def without_repeats(
    draws: Iterator[Callable[[], P]], split: Split, identity: Callable[[P], str] = lambda problem: problem.shown
) -> Iterator[P]:
    """The first problem of each item whose identity no earlier item has.

    Only the test split is kept free of repeats: training may well see a problem twice.

    Raises
    ------
    BabelScopeError
        If none of the problems drawn for an item is new.
    """
    seen: set[str] = set()
    for number, draw in enumerate(draws):
        problem = draw()
        if split == "test":
            left = REDRAWS
            while identity(problem) in seen:
                if not left:
                    raise BabelScopeError(
                        f"item {number + 1} would repeat a problem: no new one of its kind is left in the test split",
                        f"ask for {number} items or fewer",
                    )
                problem, left = draw(), left - 1
            seen.add(identity(problem))
        yield problem


def prompts_in(
    languages: Sequence[str],
    dataset: str,
    recipe: Recipe,
    problems: Sequence[P],
    render: Callable[[P, str], Task],
    covariates: Callable[[P], Mapping[str, Scalar]],
) -> PromptSet:
    """Every problem in every language, in the common shell, with the same covariates in all of them.

    The identifiers name what the recipe changes, as in `kfrd-logical+paper+max_depth=3/test/0/00012`, so that
    items of different recipes are never taken for each other. The recipe becomes the source of the set.
    """
    named = recipe_name(dataset, recipe)
    items = [item for _, item in item_ids(named, recipe.split, recipe.seed, len(problems))]
    facts = [covariates(p) for p in problems]
    prompts = tuple(
        in_shell(item, language, render(problem, language), fact, recipe.letters)
        for language in dict.fromkeys(languages)
        for item, problem, fact in zip(items, problems, facts, strict=True)
    )
    return PromptSet(dataset, prompts, {"generator": dataset, **asdict(recipe)})


def recipe_name(dataset: str, recipe: Recipe) -> str:
    """The dataset and what its recipe changes, with which identifiers begin: `kfrd-logical+paper+max_depth=3`."""
    return "+".join([dataset, *_changes(recipe)])


def _changes(recipe: Recipe) -> Iterator[str]:
    """Fields that differ from their defaults, without those that every identifier tells or does not depend on."""
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.name not in ("items", "seed", "split") and value != field.default:
            yield value if isinstance(value, str) else f"{field.name}={value}"
