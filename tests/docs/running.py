"""A page is run as a reader would: block by block, in one folder, with one set of Python names."""

import json
import re
import shutil
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from babelscope.datasets.mapping import PromptMapping
from babelscope.hooks.anatomy_file import AnatomyFile
from babelscope.training.ablation import read_ablation
from babelscope.training.chain import read_chain
from babelscope.training.config import config_of
from tests.docs import commands
from tests.docs.blocks import ROOT, Block, blocks

# Stores that a page may take for granted, where it says nothing of how they were made.
GIVEN = ("run.acts", "before.acts", "after.acts", "mine.acts", "theirs.acts")
MAKES_A_STORE = ("capture", "import", "merge", "unpack")


@dataclass
class Reader:
    """Somebody who does what a page says, in the working folder."""

    given: Path
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    names: dict[str, Any] = field(default_factory=dict)

    def read(self, page: str) -> None:
        """Run or check every block of a page, given by its path from the checkout."""
        for block in blocks(ROOT / page):
            try:
                self.take(block)
            except BaseException as error:
                error.add_note(f"in the block at {block.where}")
                raise

    def take(self, block: Block) -> None:
        for command in block.first:
            self.type(block, command)
        if block.checked.startswith("by "):
            assert (ROOT / block.checked.removeprefix("by ")).is_file()
        elif block.language in ("bash", "console"):
            self.type(block, block.text)
        elif block.language == "python":
            self.execute(block)
        elif block.language == "yaml":
            self.keep(block)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        else:
            assert block.language == "text", f"nothing checks blocks of {block.language or 'no language'}"

    def type(self, block: Block, text: str) -> None:
        parsed, more = is_parsed(block), block.checked.removeprefix("run with ").split()
        for line in commands.lines(text):
            arguments = commands.ours(line.words)
            if arguments is None:
                continue
            if not line.printed.startswith(commands.PROBLEM):
                commands.look_up(arguments)
            # An option of the program itself, as --install-completion, changes the reader's own shell.
            if not parsed and not arguments[0].startswith("--"):
                # Analyses of one block are often two ways to ask, and the second would find the output of the first.
                again = ["--overwrite"] if arguments[0] in ("analyze", "sweep", "probe") else []
                arguments = commands.with_options(arguments, more, again)
                self.provide(arguments[arguments[0] in MAKES_A_STORE and 2 :])
                commands.run(arguments, line.printed, self.patch, self.capsys)

    def execute(self, block: Block) -> None:
        program = compile(block.text, block.where, "exec")
        if not is_parsed(block):
            if not re.search(r"capture\(|import_store\(", block.text):
                self.provide(re.findall(r"[\w-]+\.acts", block.text))
            exec(program, self.names)

    def keep(self, block: Block) -> None:
        """Validate a configuration, and write it under the name in its first line."""
        record = yaml.safe_load(block.text)
        if not is_parsed(block):
            validate(record)
        named = re.match(r"# (\S+\.yaml)\n", block.text)
        if named is not None:
            Path(named[1]).write_text(block.text, "utf-8")

    def provide(self, mentioned: list[str]) -> None:
        for name in GIVEN:
            if name in mentioned and not Path(name).exists():
                shutil.copytree(self.given, name)


def is_parsed(block: Block) -> bool:
    """Whether a block is only parsed; a comment of another kind is a mistake."""
    kinds = ("parsed, ", "run with --")
    assert not block.checked or block.checked.startswith(kinds), f"unknown: checked: {block.checked}"
    return block.checked.startswith("parsed, ")


def validate(record: dict[str, Any]) -> None:
    """A configuration is what its fields make of it."""
    if "stages" in record:
        read_chain(record)
    elif "variants" in record:
        read_ablation(record)
    elif "method" in record:
        config_of(record)
    elif record.keys() & AnatomyFile.model_fields.keys():
        AnatomyFile.model_validate(record)
    else:
        PromptMapping.model_validate(record)
