"""Parallel multiple-choice questions made by hand, every cell of which says its language."""

from babelscope.schema import Prompt, PromptSet, Segment

CODES = ("en", "de", "fr", "es", "it")
LETTERS = ("A", "B", "C", "D", "E", "F", "G", "H")


def choice(number, language, options, gold, *, question=None, covariates=None, key="q"):
    """One question in an English or foreign frame: the frame says its language, too."""
    letters = LETTERS[: len(options)]
    pieces = [("instruction", f"[{language}] Answer with one letter: {', '.join(letters)}."),
              ("question", question or f"{language} question {number}"),
              ("options", "\n".join(f"{x}) {o}" for x, o in zip(letters, options, strict=True))),
              ("cue", f"Answer[{language}]:")]  # fmt: skip
    text, segments = "", []
    for name, piece in pieces:
        text += "\n" if text else ""
        segments.append(Segment(name, len(text), len(text) + len(piece), language))
        text += piece
    return Prompt(f"{key}{number}", language, text, tuple(segments), letters, tuple(options), gold, options[gold],
                  covariates or {"task": "t"})  # fmt: skip


def parallel(n=6, n_options=4, codes=CODES, key="q", start=0, without=(), **more):
    """Items from `start`; number i has gold `i % n_options`; `without`: numbers and languages that are missing."""
    return PromptSet("choices", tuple(
        choice(i, g, [f"{g} option {i}.{k}" for k in range(n_options)], i % n_options, key=key, **more)
        for g in codes for i in range(start, start + n) if (i, g) not in without
    ))  # fmt: skip
