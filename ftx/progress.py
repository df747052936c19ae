"""What a person sees of a run: one live line on a terminal, plain lines elsewhere, everything in log.txt."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from ftx.heartbeat import beat

PLAIN_LINE_SECONDS = 10.0
TIMED = "%(asctime)s %(levelname)s %(message)s"


def say(text: str) -> None:
    """A line for the user, above a live line if there is one; log.txt gets it too."""
    logging.getLogger("ftx").info(text)


class _Console(logging.Handler):
    """ftx's own messages on the terminal; warnings say that they are, errors go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING and not self.formatter else ""
        stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        tqdm.write(prefix + self.format(record), file=stream)
        stream.flush()


def start_console(*, with_time: bool = False) -> None:
    """Show ftx's messages; ``with_time`` is for a process whose output is a log file."""
    ours = logging.getLogger("ftx")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    console = _Console()
    if with_time:
        console.setFormatter(logging.Formatter(TIMED))
    ours.handlers = [console]


@contextmanager
def also_into(path: Path) -> Iterator[None]:
    """Within it ftx's messages are written to ``path`` as well, with the time of day."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(TIMED))
    ours = logging.getLogger("ftx")
    ours.addHandler(handler)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        handler.close()


class Progress:
    """Steps of one piece of work, shown as they are done; ``total`` is None where nobody knows it."""

    def __init__(self, title: str, total: int | None, *, done: int = 0, unit: str = "step", delay: float = 0) -> None:
        """``delay``: seconds before anything shows on a terminal, for what is mostly over sooner."""
        self._title, self._total, self._unit = title, total, unit
        self._live = sys.stdout.isatty()
        self._begin, self._done_before, self._shown = time.monotonic(), done, time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=title,
            unit=unit,
            unit_scale=unit == "byte",
            delay=delay,
            file=sys.stdout,
            disable=not self._live,
            dynamic_ncols=True,
            leave=False,
            bar_format="{desc} {n_fmt} {unit}s{postfix}"
            if total is None
            else "{desc} {n_fmt}/{total_fmt} {bar} {remaining} left{postfix}",
        )

    def show(self, done: int, facts: str = "") -> None:
        """``done`` of the total; ``facts`` are the numbers of the moment. Whoever watches this rank hears of it too."""
        beat(self._title, done, self._unit)
        if self._live:
            self._bar.set_postfix_str(facts, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._shown >= PLAIN_LINE_SECONDS:
            self._shown = time.monotonic()
            if self._total is None:
                say(f"{self._title} {self._unit} {done:,}  {facts}")
                return
            pace = (self._shown - self._begin) / max(done - self._done_before, 1)
            left = tqdm.format_interval((self._total - done) * pace)
            say(f"{self._title} {self._unit} {done:,}/{self._total:,}  {facts}  {left} left")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
