"""Where answers come from: a person, or the options of the command line."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from deployments.init.judge import flaw_of
from deployments.init.questions import Question

Ask = Callable[[str], str]
Tell = Callable[[str], None]
AGAIN, TRY, KEEP = "again", "try", "keep"


class Answers(Protocol):
    """Answers to questions, and what is done about an answer that does not work."""

    tell: Tell

    def answer(self, question: Question, default: str) -> str:
        """Answer a question rightly by itself; the default is what stands for no answer."""

    def confirm(self, text: str) -> bool:
        """Ask for a yes."""

    def trouble(self, title: str, problems: Sequence[str]) -> str:
        """Tell what does not work; return AGAIN to answer again, TRY to test again, KEEP to go on as it is."""

    def wait(self, text: str) -> None:
        """Let somebody do something before it goes on."""


class Dialogue:
    """A person at a terminal.

    Args:
        ask: shows a prompt and returns a line.
        ask_secret: the same without showing what is typed.
        tell: shows a line.
        given: answers that came as options; they are not asked again.
    """

    def __init__(self, ask: Ask, ask_secret: Ask, tell: Tell, given: Mapping[str, str]) -> None:
        self.tell = tell
        self._ask, self._ask_secret, self._given = ask, ask_secret, dict(given)

    def answer(self, question: Question, default: str) -> str:
        """Ask until the answer is right by itself."""
        text = self._given.pop(question.path, None)
        while True:
            if text is None:
                # A password is not shown, not even as a default.
                shown = f" [{'as it is' if question.file else default}]" if default else ""
                ask = self._ask_secret if question.file else self._ask
                text = ask(f"{question.text}{shown}: ").strip() or default
            flaw = flaw_of(question, text)
            if not flaw:
                return text
            self.tell(f"  {flaw}")
            text = None

    def confirm(self, text: str) -> bool:
        """Ask for a yes; anything else is none."""
        return self._ask(f"{text} (yes/no): ").strip().lower() in ("y", "yes")

    def trouble(self, title: str, problems: Sequence[str]) -> str:
        """Show the problems and ask how to go on."""
        for problem in problems:
            self.tell(f"  does not work: {problem}")
        while True:
            said = self._ask("Enter: test again, a: answer again, k: keep it and go on: ").strip().lower()
            if said in ("", "a", "k"):
                return {"": TRY, "a": AGAIN, "k": KEEP}[said]

    def wait(self, text: str) -> None:
        """Wait for Enter."""
        self._ask(text)


class Options:
    """The options of a script: nothing is asked, and every problem is kept for the end.

    Attributes:
        troubles: what did not work.
    """

    def __init__(self, tell: Tell, given: Mapping[str, str]) -> None:
        self.tell = tell
        self.troubles: list[str] = []
        self._given = given

    def answer(self, question: Question, default: str) -> str:
        """Take the option, else the default."""
        return self._given.get(question.path, default)

    def confirm(self, text: str) -> bool:
        """Take what is shown: whoever says --yes has said so."""
        self.tell(text)
        return True

    def trouble(self, title: str, problems: Sequence[str]) -> str:
        """Keep the problems for the end."""
        self.troubles += [f"{title}: {problem}" for problem in problems]
        return KEEP

    def wait(self, text: str) -> None:
        """Wait for nobody."""
