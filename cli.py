"""Launcher, so that `python cli.py capture` works from a checkout."""

from babelscope.cli.main import main

if __name__ == "__main__":
    main()
