"""What every backend reaches in every architecture, measured on tiny models; `python tests/hooks/parity.py` writes
the table of docs/backends.md, and the tests compare it with what they find.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import model_zoo
import numpy as np
from transformers.utils import logging as transformers_logging

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, load_model, make_plan, run_plan
from babelscope.schema import SITE_KINDS, Block, Prompt, PromptSet, Segment

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
BEGIN, END = "<!-- parity: begin -->", "<!-- parity: end -->"
BACKENDS = ("transformer-lens", "nnsight")
ARCHITECTURES = {
    "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma2": "Gemma 2",
    "gemma3": "Gemma 3", "bloom": "BLOOM", "gpt2": "GPT-2", "gpt-neox": "GPT-NeoX", "phi3": "Phi-3",
    "falcon": "Falcon", "xglm": "XGLM", "olmo2": "OLMo 2", "cohere": "Cohere", "mixtral": "Mixtral",
    "qwen3-moe": "Qwen3-MoE", "bert": "BERT", "xlm-r": "XLM-R", "distilbert": "DistilBERT", "mt5": "mT5",
    "m2m100": "M2M100", "bart": "BART",
}  # fmt: skip

# Those of models as they are published; a cross-lingual query is put in by us, and read by the backend torch alone.
KINDS = tuple(kind for kind in SITE_KINDS if kind != "attn.crossed")


@dataclass(frozen=True)
class Cell:
    """Largest absolute difference of any row to the model's own, or why there is none."""

    error: float = np.nan
    reason: str = ""


Rows = Mapping[str, np.ndarray]
# (backend, site without its layer) -> Cell; the backend is "" where the model itself lacks the site.
Parity = Mapping[tuple[str, str], Cell]


def short_prompts() -> PromptSet:
    """Three items of different lengths in two scripts."""
    found = []
    for language, line in (("en", model_zoo.LINES[0]), ("zh", model_zoo.LINES[4])):
        for item in range(3):
            question = line[: 6 + 8 * item]
            spans = (Segment("question", 0, len(question), language),)
            found.append(Prompt(f"i{item}", language, f"{question} Answer:", spans, ("A", "B"), ("x", "y"), gold=0))
    return PromptSet("short", tuple(found))


def site_names(loaded: LoadedModel) -> list[str]:
    """Every site of the vocabulary in every stack of a model, without layers, whether the model has it or not."""
    return [f"{tag}.{kind}" if tag else kind for tag in loaded.anatomy.stacks for kind in KINDS]


def blocks_of(loaded: LoadedModel, prompts: PromptSet, backend: str, sites: list[str], **more: object) -> list[Block]:
    """Every token, the last one and means of a segment where there are spans, and the answers."""
    blocks = [layer for stack in loaded.anatomy.stacks.values() for layer in stack.layers]
    averages = not loaded.ref.n_encoder_layers and not any(layer.experts for layer in blocks)
    positions = ["all", "last", *(["segment:question"] if averages else [])]
    plan = make_plan(loaded, prompts, sites=sites, positions=positions, backend=backend, decoder="copy", **more)
    return list(run_plan(plan, loaded, prompts, plan.blocks))


def rows_of(blocks: list[Block]) -> dict[str, np.ndarray]:
    """Everything that was captured, by site: the values of all blocks and positions, flat; answers beside them."""
    found: dict[str, list[np.ndarray]] = {}
    for block in blocks:
        for (site, _), rows in block.rows.items():
            found.setdefault(site, []).append(rows.values.astype(np.float64).ravel())
        if block.answers is not None:
            found.setdefault("answers", []).append(block.answers.scores.ravel())
    return {site: np.concatenate(parts) for site, parts in found.items()}


def reachable(loaded: LoadedModel, prompts: PromptSet, backend: str, sites: list[str]) -> tuple[Rows, dict[str, str]]:
    """Rows of the sites that a backend gives, and for the others the reason that it raised."""
    refused: dict[str, str] = {}
    while given := [site for site in sites if site not in refused]:
        try:
            return rows_of(blocks_of(loaded, prompts, backend, given)), refused
        except BabelScopeError as error:
            problem = error.problem
        named = re.match(r"site ([\w.]+)", problem)
        if named and named[1] in given:  # leave out the one that was named, and ask for the rest
            refused[named[1]] = problem
        else:  # the model as a whole was refused: for every site?
            alone = {site: reason for site in given if (reason := refusal(loaded, prompts, backend, site))}
            assert alone, problem
            refused |= alone
    return {}, refused


def refusal(loaded: LoadedModel, prompts: PromptSet, backend: str, site: str) -> str:
    try:
        plan = make_plan(loaded, prompts, sites=[site], positions=["last"], backend=backend)
        run_plan(plan, loaded, prompts, plan.blocks)
    except BabelScopeError as error:
        return error.problem
    return ""


def measure(loaded: LoadedModel, prompts: PromptSet) -> Parity:
    """Every cell of one architecture."""
    names = site_names(loaded)
    expected, lacking = reachable(loaded, prompts, "torch", names)

    def cell(reason: str, separator: str) -> Cell:
        said = re.sub(r" \(relative difference [^)]*\)", "", reason.split(separator, 1)[1])
        return Cell(reason=said.removeprefix("not reachable, because ").replace(loaded.anatomy.name, "this model"))

    cells = {("", name): cell(reason, ": ") for name, reason in lacking.items()}
    for backend in BACKENDS:
        found, refused = reachable(loaded, prompts, backend, [n for n in names if n not in lacking])
        for name, reason in refused.items():
            assert "is not reachable" in reason, reason
            cells[backend, name] = cell(reason, "because ")
        for name, rows in found.items():
            cells[backend, name] = Cell(error=float(np.nanmax(np.abs(rows - expected[name]), initial=0.0)))
    return cells


def table_rows(title: str, parity: Parity, footnote: Callable[[str], str]) -> Iterator[str]:
    """One line per stack of an architecture."""
    stacks = sorted({name.rpartition(".")[0].split(".")[0] for _, name in parity} & {"enc", "dec"}, reverse=True)
    for stack in stacks or [""]:
        cells = [_cell(parity, f"{stack}.{kind}" if stack else kind, footnote) for kind in KINDS]
        label = title + {"": "", "enc": ", encoder", "dec": ", decoder"}[stack]
        yield f"| {label} | {' | '.join(cells)} |"


def _cell(parity: Parity, name: str, footnote: Callable[[str], str]) -> str:
    if ("", name) in parity:
        return f"– {footnote(parity['', name].reason)}"
    found = [parity[backend, name] for backend in BACKENDS if (backend, name) in parity]
    texts = [f"✗ {footnote(c.reason)}" if c.reason else "0" if c.error == 0 else f"{c.error:.0e}" for c in found]
    return " · ".join(texts)


def render(parities: Mapping[str, Parity]) -> str:
    """The table and its footnotes."""
    notes: dict[str, int] = {}

    def footnote(reason: str) -> str:
        return f"[{notes.setdefault(reason, len(notes) + 1)}]"

    lines = [
        f"| architecture | {' | '.join(f'`{kind}`' for kind in KINDS)} |",
        "|---" * (len(KINDS) + 1) + "|",
    ]
    for name, parity in parities.items():
        lines += table_rows(ARCHITECTURES[name], parity, footnote)
    lines += ["", *(f"- [{number}] not reachable, because {reason}" for reason, number in notes.items())]
    return "\n".join(lines)


def committed(title: str) -> list[str]:
    """The lines of an architecture in the page, numbers taken out and footnotes written out."""
    text = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    notes = dict(re.findall(r"^- \[(\d+)\] not reachable, because (.*)$", text, flags=re.M))
    rows = [row for row in text.splitlines() if re.match(rf"\| {re.escape(title)}(, (en|de)coder)? \|", row)]
    return [without_numbers(re.sub(r"\[(\d+)\]", lambda m: f"[{notes[m[1]]}]", row)) for row in rows]


def without_numbers(row: str) -> str:
    """A row with every difference replaced by the fact that there is one to be had."""
    return re.sub(r"(?<=[|·] )\d(e[+-]\d+)?(?= [|·])", "=", row)


def write_page(parities: Mapping[str, Parity]) -> None:
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{render(parities)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        write_page(
            {
                name: measure(load_model(model_zoo.saved(name, Path(scratch) / name), device="cpu"), short_prompts())
                for name in ARCHITECTURES
            }
        )
