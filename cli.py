"""Launcher, so that `python cli.py capture` works from a checkout."""

import sys

try:
    from babelscope.cli.main import main
except ModuleNotFoundError as missing:
    problem = f"{missing.name} is not installed for {sys.executable}"
    sys.exit(f"babelscope: {problem}\n  hint: make demo, then . .venv/bin/activate")

if __name__ == "__main__":
    main()
