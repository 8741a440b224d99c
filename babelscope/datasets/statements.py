"""Statements to be judged true or false: the task that RuleTaker and LeapOfThought share."""

from babelscope.datasets.shell import Task
from babelscope.datasets.words import wording


def truth_words(language: str) -> tuple[str, str]:
    """The words for false and true, in this order, so that the index of an option is the label 0 or 1."""
    words = wording(language)
    return words.say("statement.false"), words.say("statement.true")


def judged(context: str, statement: str, label: bool, language: str, instruction: str) -> Task:
    """A statement after a context, with the two truth values as options; `instruction` is a key of the wording."""
    return Task(context, statement, truth_words(language), int(label), instruction)
