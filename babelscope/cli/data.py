"""`babelscope data`: parallel prompts."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from babelscope import layout, plugins, workflows
from babelscope.cli import completion, printing
from babelscope.cli.options import AsJson, Languages, Limit, Mapping, Overwrite, split_codes
from babelscope.cli.progress import note
from babelscope.cli.screen import Command, Group
from babelscope.schema import Prompt

app = typer.Typer(help="List, generate, audit and show parallel prompts.", no_args_is_help=True, cls=Group)
Source = Annotated[str, typer.Argument(help="Generated dataset or file.", autocompletion=completion.plugin("dataset"))]


@app.command("ls", cls=Command)
def list_datasets(as_json: AsJson = False) -> None:
    """List the generated datasets."""
    infos = {name: plugins.load("dataset", name).info for name in plugins.names("dataset")}
    rows = [
        {"name": name, "demand": info.demand, "languages": len(info.languages), "title": info.title}
        for name, info in infos.items()
    ]
    printing.show(layout.table(rows), rows, as_json=as_json)


@app.command(cls=Command)
def generate(
    dataset: Annotated[
        str,
        typer.Argument(help="Name of a generated dataset.", autocompletion=completion.plugin("dataset")),
    ],
    out: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    languages: Languages = None,
    items: Annotated[
        int | None, typer.Option(min=1, help="Items per language. Default: that of the dataset, mostly 240.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives other items.")] = 0,
    split: Annotated[
        Literal["train", "test"],
        typer.Option(help="The two never share a problem; of facts, both ask the same ones."),
    ] = "test",
    letters: Annotated[Literal["latin", "native"], typer.Option(help="Option letters.")] = "latin",
    compat: Annotated[Literal["corrected", "paper"], typer.Option(help="paper: the published construction.")] = (
        "corrected"
    ),
    max_depth: Annotated[
        int | None, typer.Option(min=0, help="kfrd-logical, ruletaker: rules in the longest chain.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="kfrd-symbolic: steps of the longest item.")] = None,
    group: Annotated[str | None, typer.Option(help="fictional-authors: one group of people. Default: all.")] = None,
    world: Annotated[int | None, typer.Option(min=0, help="fictional-authors: other people, other facts.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the prompts of a generated dataset."""
    workflows.check_output(out, overwrite=overwrite)
    asked = {"items": items, "max_depth": max_depth, "max_steps": max_steps, "group": group, "world": world}
    made = workflows.generate(
        dataset, languages=split_codes(languages), seed=seed, split=split, letters=letters, compat=compat,
        **{name: value for name, value in asked.items() if value is not None},
    )  # fmt: skip
    workflows.write_prompts(made, out)
    print(f"{out}: {len(made.items)} items x {len(made.languages)} languages, sha256 {made.digest()[:16]}")


@app.command(cls=Command)
def export(
    source: Source,
    out: Annotated[str, typer.Argument(help="JSONL file per language, as 'data/{language}/test.jsonl'.")],
    layout: Annotated[Literal["ruletaker", "leap-of-thought"], typer.Option(help="Whose files to write.")],
    languages: Languages = None,
    limit: Limit = None,
    mapping: Mapping = None,
    overwrite: Overwrite = False,
) -> None:
    """Write true-or-false statements as a published set is laid out."""
    prompts, notes = workflows.prompts_of([source], languages=split_codes(languages), limit=limit, mapping=mapping)
    for text in notes:
        note(text)
    for path in (Path(out.replace("{language}", language)) for language in prompts.languages):
        if path.exists():
            workflows.check_output(path, overwrite=overwrite)
    for path in workflows.write_published(prompts, layout, out):
        print(path)


@app.command(cls=Command)
def pairs(
    source: Source,
    out: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    languages: Annotated[str, typer.Option("--languages", help="Comma-separated pairs, as en-fr,en-de.")],
    mapping: Mapping = "xnli",
    hypothesis: Annotated[bool, typer.Option(help="Second the hypothesis, not the same premise again.")] = False,
    swap: Annotated[bool, typer.Option(help="Turn the languages of half of the items round.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed turns other items.")] = 0,
    limit: Limit = None,
    overwrite: Overwrite = False,
) -> None:
    """Write pairs of texts of an inference set, in two languages."""
    workflows.check_output(out, overwrite=overwrite)
    made, notes = workflows.inference_pairs(
        source,
        split_codes(languages) or [],
        mapping=mapping,
        limit=limit,
        parallel=not hypothesis,
        swap=swap,
        seed=seed,
    )
    for text in notes:
        note(text)
    workflows.write_prompts(made, out)
    print(f"{out}: {len(made)} texts in {', '.join(made.languages)}, sha256 {made.digest()[:16]}")


@app.command(cls=Command)
def mix(
    source: Source,
    out: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    unit: Annotated[
        Literal["document", "sentence", "chunk", "unmixed"],
        typer.Option(help="What is drawn a language: chunks have 8 words; unmixed: documents, each language equally."),
    ],
    languages: Languages = None,
    run: Annotated[int, typer.Option(min=1, help="Sentences or chunks in a row in the language drawn.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed draws other languages.")] = 0,
    mapping: Mapping = None,
    limit: Limit = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a mixed-language corpus out of a parallel one.

    SOURCE holds documents, a sentence a line.
    """
    workflows.check_output(out, overwrite=overwrite)
    prompts, notes = workflows.prompts_of([source], languages=split_codes(languages), limit=limit, mapping=mapping)
    for text in notes:
        note(text)
    made = workflows.mixed_corpus(prompts, unit, run=run, seed=seed)
    workflows.write_prompts(made, out)
    print(f"{out}: {len(made)} documents, sha256 {made.digest()[:16]}")


@app.command("mix-choice", cls=Command)
def mix_choice(
    source: Source,
    out: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    languages: Annotated[str, typer.Option("--languages", help="Comma-separated codes to mix, as en,de,fr,es,it.")],
    settings: Annotated[
        str,
        typer.Option(help="Comma-separated: full, question, options, gt, gt_question, onewrong, threewrong, mixup."),
    ] = "all",
    base: Annotated[str, typer.Option(help="Language of the frame, and of what a setting leaves alone.")] = "en",
    mitigation: Annotated[
        list[str] | None,
        typer.Option(
            help="Variant of every setting: awareness-1, awareness-2, english-shots, same-shots, translate, ids-1234, "
            "ids-CDEF."
        ),
    ] = None,
    shots: Annotated[int, typer.Option(min=1, help="Demonstrations of a mitigation that has some.")] = 5,
    demos: Annotated[
        str | None, typer.Option(help="File of other items, or generated set (its train split), to demonstrate with.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other languages and options.")] = 0,
    mapping: Mapping = None,
    limit: Limit = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write multiple-choice questions with parts in other languages."""
    workflows.check_output(out, overwrite=overwrite)
    made, notes = workflows.mixed_questions(
        source, split_codes(languages) or [], base=base,
        settings=None if settings == "all" else split_codes(settings),
        mitigations=mitigation or [], demos=demos, shots=shots, seed=seed, mapping=mapping, limit=limit,
    )  # fmt: skip
    for text in notes:
        note(text)
    workflows.write_prompts(made, out)
    table = workflows.mixing(made, base)
    line = f"{out}: {len(made.items)} items in {len(made.languages)} settings, sha256 {made.digest()[:16]}"
    found = {"mixing": table, "out": out, "items": len(made.items), "sha256": made.digest()}
    printing.show(f"{layout.table(table.to_dict('records'))}\n{line}", found, as_json=as_json)


@app.command(cls=Command)
def perturb(
    source: Source,
    out: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    language: Annotated[str, typer.Option(help="Of the texts.")] = "en",
    lexicon: Annotated[
        Path | None, typer.Option(help="TSV file, a language a column. Default: our own vocabularies.")
    ] = None,
    translate_rate: Annotated[float, typer.Option(help="Share of the words of a text that are translated.")] = 0.16,
    replace_rate: Annotated[
        float | None, typer.Option(help="Share that the controls replace. Default: as many as are translated.")
    ] = None,
    vocabulary: Annotated[
        str | None, typer.Option(help="Model whose tokens replace words. Default: random words of the texts.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed changes other words.")] = 0,
    mapping: Mapping = None,
    limit: Limit = None,
    overwrite: Overwrite = False,
) -> None:
    """Write texts mixed with words of other languages, and controls.

    In the controls the same words are lost.
    """
    workflows.check_output(out, overwrite=overwrite)
    made, notes = workflows.perturbed_prompts(
        source, language=language, lexicon=lexicon, translate_rate=translate_rate, replace_rate=replace_rate,
        vocabulary=vocabulary, seed=seed, mapping=mapping, limit=limit,
    )  # fmt: skip
    for text in notes:
        note(text)
    workflows.write_prompts(made, out)
    print(f"{out}: {len(made.items)} items as {', '.join(made.languages)}, sha256 {made.digest()[:16]}")


@app.command(cls=Command)
def translation(
    source: Source,
    out: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    pairs: Annotated[str, typer.Option(help="Comma-separated directions, as en-de,de-en.")],
    shots: Annotated[int, typer.Option(min=0, help="Demonstrations in each prompt.")] = 4,
    segment: Annotated[str, typer.Option(help="Name of the segment that is translated. Default: the text.")] = "",
    seed: Annotated[int, typer.Option(help="Another seed shows other demonstrations.")] = 0,
    mapping: Mapping = None,
    limit: Limit = None,
    overwrite: Overwrite = False,
) -> None:
    """Write prompts that ask for translations of parallel texts."""
    workflows.check_output(out, overwrite=overwrite)
    made, notes = workflows.translations(
        source, split_codes(pairs) or [], shots=shots, segment=segment, seed=seed, mapping=mapping, limit=limit
    )
    for text in notes:
        note(text)
    workflows.write_prompts(made, out)
    print(f"{out}: {len(made.items)} items in {', '.join(made.languages)}, sha256 {made.digest()[:16]}")


@app.command(cls=Command)
def audit(
    source: Source,
    languages: Languages = None,
    limit: Limit = None,
    mapping: Mapping = None,
    as_json: AsJson = False,
) -> None:
    """Measure how far heuristics get that never solve the task."""
    table, notes = workflows.audit_prompts(source, languages=split_codes(languages), limit=limit, mapping=mapping)
    for text in notes:
        note(text)
    printing.show(layout.table(table.to_dict("records")), table, as_json=as_json)


@app.command(cls=Command)
def show(
    source: Source,
    languages: Languages = None,
    limit: Limit = 1,
    mapping: Mapping = None,
    as_json: AsJson = False,
) -> None:
    """Print prompts as the model reads them."""
    prompts, notes = workflows.prompts_of([source], languages=split_codes(languages), limit=limit, mapping=mapping)
    for text in notes:
        note(text)
    texts = [_shown(prompt) for prompt in prompts.prompts]
    printing.show("\n".join(texts), prompts.prompts, as_json=as_json)


def _shown(prompt: Prompt) -> str:
    gold = f"  gold {prompt.letters[prompt.gold]}" if prompt.gold is not None else ""
    return f"--- {prompt.item} [{prompt.language}]{gold}\n{prompt.text}\n"
