"""`python -m babelscope`."""

from babelscope.cli.main import main

if __name__ == "__main__":
    main()
