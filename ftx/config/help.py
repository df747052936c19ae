"""``--help``: every group, choice and experiment with its one-line description, without composing anything."""

from pathlib import Path

from ftx.environment import CHECKOUT

USAGE = """usage: python -m ftx.{verb} [WORD ...]

{purpose}

A word chooses (model=tiny) or sets a key (schedule.epochs=5). --cfg job shows the composed run with all its keys.
  -m, --multirun      several values make a sweep: -m schedule.epochs=0,1,2
  --cfg job           print the composed run and stop
  --config-dir DIR    a folder with choices of your own: DIR/model/mine.yaml is model=mine
"""


def folders(config_dir: Path | None = None) -> dict[str, list[Path]]:
    """Group → the folders its choices lie in."""
    found = {folder.name: [folder] for folder in sorted((CHECKOUT / "conf").iterdir()) if folder.is_dir()}
    found["launcher"] = [CHECKOUT / "launchers"]
    found["experiment"] = [CHECKOUT / "experiments"]
    if config_dir is not None:
        for group, places in found.items():
            places.append(config_dir / group)
    return found


def groups() -> list[str]:
    """The names of the config groups."""
    return list(folders())


def choices_of(group: str, config_dir: Path | None = None) -> dict[str, str]:
    """Choice → the sentence in the first comment of its file."""
    files = [file for folder in folders(config_dir).get(group, []) for file in sorted(folder.glob("*.yaml"))]
    files = [file for file in files if file.name != "site.yaml"]
    return {file.stem: _description(file) for file in files}


def render(verb: str, purpose: str, config_dir: Path | None = None) -> str:
    """The help text of a verb that takes words."""
    lines = [USAGE.format(verb=verb, purpose=purpose)]
    for group in folders(config_dir):
        lines.append(f"{group}=")
        choices = choices_of(group, config_dir)
        width = max(map(len, choices), default=0)
        lines += [f"  {choice:<{width}}  {text}" for choice, text in choices.items()]
    return "\n".join(lines)


def _description(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
    return ""
