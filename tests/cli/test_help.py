"""Every help text fits a screen and ends with a command that can be typed; a shell completes what can be named."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from rich.cells import cell_len

from babelscope import plugins
from babelscope.cli.examples import EXAMPLES
from babelscope.cli.main import app
from tests.cli import tiny
from tests.cli.conftest import Finished

Cli = Callable[..., Finished]
ROOT_COMMAND = typer.main.get_command(app)
LINES = 44

# Examples that take minutes, need files of one's own, or are run by tests of their own.
NOT_RUN = {
    "", "demo", "import", "merge", "classify", "data pairs", "data mix", "train", "train bitfit", "train full",
    "train lora", "train qcross", "train ablation", "train chain", "train organism", "train encoder-organism",
}  # fmt: skip


def commands(command: object = ROOT_COMMAND, name: str = "") -> Iterator[tuple[str, object]]:
    yield name, command
    for child, one in getattr(command, "commands", {}).items():
        yield from commands(one, f"{name} {child}".strip())


NAMES = [name for name, _ in commands()]


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The help of a command, asked for as from a checkout; of all programs, its name takes the most room."""
    ROOT_COMMAND.main([*name.split(), "--help"], prog_name="cli.py", standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_fits_a_screen_and_ends_with_an_example(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    lines = help_of(name, capsys).rstrip("\n").splitlines()
    assert len(lines) <= LINES
    assert max(map(cell_len, lines)) <= 80
    assert lines[-1].removeprefix("Example: ").strip() == f"python cli.py {EXAMPLES[name]}"
    assert "Example:" in lines[-1] or lines[-2] == "Example:"


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_names_every_option_with_what_it_is(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    told = help_of(name, capsys)
    for parameter in dict(commands())[name].params:
        assert parameter.help, (name, parameter.name)
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            shown = option if not parameter.secondary_opts else option.replace("--", "--[no-]", 1)
            assert re.search(rf"  (-., )?{re.escape(shown)}[ ,]", told), (name, option)


def test_every_command_has_one_example_and_every_example_a_command() -> None:
    assert set(EXAMPLES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_understood(name: str) -> None:
    words = shlex.split(EXAMPLES[name])
    context = ROOT_COMMAND.make_context("babelscope", list(words))
    rest = [*context._protected_args, *context.args]
    while hasattr(context.command, "commands"):
        child, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(child, rest, parent=context)
        rest = [*getattr(context, "_protected_args", []), *context.args]
    assert context.command_path.split()[1:] == words[: len(context.command_path.split()) - 1]
    assert name in (" ".join(context.command_path.split()[1:]), "", "data", "train")
    assert not rest


def test_the_examples_tell_one_story_that_runs(cli: Cli, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, "organism")  # a folder here comes before an embedded model
    for name, text in EXAMPLES.items():
        if name in NOT_RUN:
            continue
        fewer = {"capture": ["--languages", "en,de,sw", "--limit", "24", "--site", "resid.post", "--site", "mlp.act"],
                 "data export": ["--languages", "en,en-fr", "--limit", "6"]}.get(name, [])  # fmt: skip
        words = [word.replace("resid.post@3", "resid.post@1") for word in shlex.split(text)]
        done = cli(*words, *fewer)
        assert done.code == 0, (text, done.err)
        assert done.out


def complete(words: str, tmp_path: Path, shell: str = "bash", check: str = "") -> list[str]:
    """What a shell gets for words of which the last has begun; a check is run in the process behind it."""
    code = f"import sys\nfrom babelscope.cli.main import main\ntry:\n    main()\nfinally:\n    {check or 'pass'}\n"
    launcher = tmp_path / "babelscope"
    launcher.write_text(code)
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)} if shell == "bash" else {
        "_TYPER_COMPLETE_ARGS": words}  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(tiny.ROOT), "_BABELSCOPE_COMPLETE": f"complete_{shell}", **asked}
    done = subprocess.run([sys.executable, str(launcher)], capture_output=True, text=True, env=env, check=False,
                          timeout=600)  # fmt: skip
    assert not done.stderr, done.stderr
    return done.stdout.removesuffix("\n").split("\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("babelscope ana", ["analyze"]), ("babelscope data gen", ["generate"]),
        ("babelscope analyze run.acts --rec", ["--recipe"]),
        ("babelscope analyze run.acts --metric ", [*plugins.names("metric")]),
        ("babelscope analyze run.acts --recipe null", ["null-ladder"]),
        ("babelscope analyze run.acts --mode ", ["corrected", "paper", "both"]),
        ("babelscope capture run.acts --site resid", ["resid.pre", "resid.post"]),
        ("babelscope capture run.acts --prompts kfrd-a", ["kfrd-arithmetic"]),
        ("babelscope capture run.acts --model ", ["encoder-organism", "organism"]),
        ("babelscope capture run.acts --backend t", ["torch", "transformer-lens"]),
        ("babelscope train lora tuned --config small-l", ["small-lora-knowledge"]),
        ("babelscope inspect run.a", [""]),  # then the shell completes files
    ],
)  # fmt: skip
def test_bash_completes_names_without_torch(tmp_path: Path, words: str, expected: list[str]) -> None:
    check = "assert not {'torch', 'transformers', 'pandas', 'scipy', 'altair'} & sys.modules.keys()"
    assert complete(words, tmp_path, check=check) == expected


def test_zsh_completes_commands_options_and_values(tmp_path: Path) -> None:
    assert '"analyze":' in complete("babelscope ana", tmp_path, "zsh")[0]
    assert '"--recipe":' in complete("babelscope analyze x --rec", tmp_path, "zsh")[0]
    assert '"nao"' in " ".join(complete("babelscope analyze x --metric na", tmp_path, "zsh"))


@pytest.mark.parametrize(("shell", "registers"), [("bash", "complete -o default -F"), ("zsh", "#compdef babelscope")])
def test_the_script_of_a_shell_completes_the_installed_command(tmp_path: Path, shell: str, registers: str) -> None:
    # Which shell it is is told from the process behind it; here it is named.
    env = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = tiny.process("--show-completion", shell, cwd=tmp_path, env=env)  # of the launcher of the checkout
    assert done.returncode == 0, done.stderr
    assert registers in done.stdout
    assert "_BABELSCOPE_COMPLETE=complete_" in done.stdout


def test_bash_itself_completes_once_the_script_is_read(tmp_path: Path) -> None:
    env = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = tiny.process("--show-completion", "bash", cwd=tmp_path, env=env).stdout
    launcher = tmp_path / "babelscope"
    launcher.write_text(f"#!{sys.executable}\nfrom babelscope.cli.main import main\nmain()\n")
    launcher.chmod(0o755)
    ask = f'{script}\nCOMP_WORDS=(babelscope analyze run.acts --metric neu); COMP_CWORD=4\n' \
          '_babelscope_completion babelscope; printf "%s\\n" "${COMPREPLY[@]}"; complete -p babelscope'  # fmt: skip
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(tiny.ROOT)}
    done = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    names = [name for name in plugins.names("metric") if name.startswith("neu")]
    assert done.stdout.split("\n")[:-2] == names


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_installing_writes_the_script_to_the_home_of_the_user(tmp_path: Path, shell: str) -> None:
    env = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(tiny.ROOT)}
    env |= {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = tiny.process("--install-completion", shell, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    written = [p for p in tmp_path.rglob("*") if p.is_file() and "_BABELSCOPE_COMPLETE" in p.read_text()]
    assert len(written) == 1
