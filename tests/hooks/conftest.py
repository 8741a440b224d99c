"""Models of every family, built once per session, and prompts that fit them."""

import logging
from collections.abc import Callable
from pathlib import Path

import model_zoo
import pytest
import torch
import transformers
from transformers.utils import logging as transformers_logging

from babelscope.hooks import LoadedModel, load_model
from babelscope.schema import Prompt, PromptSet, Segment

transformers_logging.disable_progress_bar()
logging.getLogger("transformers").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Saved model of a family; the same folder each time."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = model_zoo.saved(name, tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture(scope="session")
def load(folder_of: Callable[[str], Path]) -> Callable[[str], LoadedModel]:
    """A loaded model of a family, shared by the tests, which must leave it as it was."""
    loaded: dict[str, LoadedModel] = {}

    def get(name: str) -> LoadedModel:
        if name not in loaded:
            loaded[name] = load_model(folder_of(name), device="cpu")
        return loaded[name]

    return get


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., LoadedModel]:
    """A model of a family beyond the zoo, by the name of its classes and the sizes in its configuration."""

    def get(name: str, *, head: str = "", **sizes: object) -> LoadedModel:
        torch.manual_seed(0)
        special = {"vocab_size": 320, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
        config = getattr(transformers, f"{name}Config")(**special, **sizes)
        head = head or ("ForConditionalGeneration" if config.is_encoder_decoder else "ForCausalLM")
        model_zoo.save(getattr(transformers, name + head)(config), tmp_path, special=False)
        return load_model(tmp_path, device="cpu")

    return get


@pytest.fixture(scope="session")
def prompts() -> PromptSet:
    """Five items of very different lengths in three languages, with a question and two options."""
    found = []
    for language, line in zip(("en", "sw", "zh"), (model_zoo.LINES[i] for i in (0, 3, 4)), strict=True):
        for item in range(5):
            question = line[: 8 + 9 * item]
            text = f"{question} A. x B. y Answer:"
            found.append(
                Prompt(
                    f"item-{item}", language, text, (Segment("question", 0, len(question), language),), ("A", "B"),
                    ("x", "y"), gold=item % 2,
                )
            )  # fmt: skip
    return PromptSet("questions", tuple(found))
