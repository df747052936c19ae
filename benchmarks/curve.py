"""The training loss of several runs against epochs, each averaged over so many rows of its metrics.jsonl.

python -m benchmarks.curve FILE_WITHOUT_SUFFIX RUN... [--rows 10]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from ftx import metrics_log
from ftx.figures import BLUE, GREY, INK, ORANGE, STYLE, save

LINES = ((INK, "-"), (BLUE, "--"), (ORANGE, ":"), (GREY, "-."))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=10)
    given = parser.parse_args(arguments)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for run, (colour, form) in zip(given.runs, LINES, strict=False):
            rows = [row for row in metrics_log.read(run / "metrics.jsonl") if "train_loss" in row]
            groups = [rows[at : at + given.rows] for at in range(0, len(rows), given.rows)]
            epochs = [group[-1]["epoch"] for group in groups]
            losses = [sum(row["train_loss"] for row in group) / len(group) for group in groups]
            axes.plot(epochs, losses, form, color=colour, linewidth=1.2, label=seed_of(run))
        axes.set(xlabel="epochs", ylabel="training loss, nats for a supervised token", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        paths = save(figure, given.file)
    sys.stdout.write("".join(f"{path}\n" for path in paths))


def seed_of(run: Path) -> str:
    words = (run / "run.yaml").read_text(encoding="utf-8").splitlines()
    return next((line.strip().replace(": ", " ") for line in words if line.startswith("seed:")), run.name)


if __name__ == "__main__":
    main(sys.argv[1:])
