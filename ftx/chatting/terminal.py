"""A conversation line by line: questions and commands come in, answers go out."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ftx.chatting.loading import Partner
from ftx.chatting.streaming import Settings, answer
from ftx.data.conversation import Message
from ftx.errors import Interrupted, UserError

HELP = (
    "/base: the model before its training answers, and back · /reset: a new conversation · /system TEXT: what the "
    "model is told first (alone: nothing) · /quit"
)


@dataclass
class Chat:
    """What was said so far. ``write`` gets answers, ``note`` everything else."""

    partner: Partner
    settings: Settings
    write: Callable[[str], None]
    note: Callable[[str], None]
    system: str = ""
    turns: list[Message] = field(default_factory=list)
    is_base: bool = False

    def hear(self, line: str) -> bool:
        """Do what a line says; False when that ends the conversation. Raises UserError."""
        word, _, rest = line.strip().partition(" ")
        if not word:
            return True
        if not word.startswith("/"):
            self.ask(line.strip())
            return True
        if word == "/quit":
            return False
        commands = {"/base": self.toggle, "/reset": self.reset, "/system": lambda: self.tell(rest.strip())}
        commands.get(word, lambda: self.note(HELP))()
        return True

    def ask(self, question: str) -> None:
        """One turn of each; a question that got no whole answer is as if it had not been asked."""
        told: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        asked: list[Message] = [*self.turns, {"role": "user", "content": question}]
        said = answer(self.partner, [*told, *asked], self.settings, self.write, base=self.is_base)
        self.write("\n")
        self.turns = [*asked, {"role": "assistant", "content": said}]

    def toggle(self) -> None:
        if not self.partner.has_base:
            self.note("this model was not trained here: there is no other one")
            return
        self.is_base = not self.is_base
        self.note(f"now answers {'the model before its training' if self.is_base else self.partner.name}")

    def reset(self) -> None:
        self.turns = []
        self.note("a new conversation")

    def tell(self, text: str) -> None:
        self.system = text
        self.reset()


def on_terminal(chat: Chat) -> None:
    """Until /quit, the end of input or Ctrl-C; Ctrl-C within an answer ends the answer only."""
    import readline  # noqa: F401 - lines that were typed come back with the arrow keys

    chat.note(f"{chat.partner.name}: {HELP}")
    while True:
        try:
            line = input("> ")
        except EOFError:
            break
        except Interrupted as signal:
            if str(signal) != "SIGINT":
                raise
            break
        try:
            if not chat.hear(line):
                break
        except Interrupted as signal:
            if str(signal) != "SIGINT":
                raise
            chat.note("stopped")
        except UserError as mistake:
            chat.note(str(mistake))


def through_pipes(chat: Chat, lines: Iterator[str]) -> None:
    """A question a line, of one conversation; raises UserError at the first that cannot be answered."""
    for line in lines:
        if not chat.hear(line):
            break


def write(text: str) -> None:
    """To stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """To stderr, apart from the answers."""
    sys.stderr.write(f"{text}\n")
