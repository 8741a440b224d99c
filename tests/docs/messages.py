"""The messages of errors, as the code has them: `…` stands for what is filled in."""

import ast
from dataclasses import dataclass

from tests.docs.blocks import ROOT

CLASSES = ("BabelScopeError", "CaptureStoppedError")


@dataclass(frozen=True)
class Message:
    """The problem of one error, and the module that raises it, as `hooks/models`."""

    module: str
    text: str


def messages() -> list[Message]:
    """Every problem that is written where its error is made; those that are put together elsewhere are left out."""
    found = []
    for path in sorted((ROOT / "babelscope").rglob("*.py")):
        module = str(path.relative_to(ROOT / "babelscope").with_suffix(""))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES and node.args:
                text = template(node.args[0])
                if text:
                    found.append(Message(module, text))
    return found


def template(node: ast.expr) -> str:
    """A text with `…` for what is filled in; "" where nothing of it is written here."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [str(value.value) if isinstance(value, ast.Constant) else "…" for value in node.values]
        return "" if set(parts) <= {"…"} else "".join(parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + (template(node.right) or "…") if template(node.left) else ""
    return ""
