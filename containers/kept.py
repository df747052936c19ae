"""The packages that an installation leaves as they are, as pip's constraints: PyTorch, and what was built for it here.

A version with a local part is one that PyPI does not have: whoever made the image built it.
"""

import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name
from pip._vendor.packaging.version import InvalidVersion, Version

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
BUILT_TOGETHER = {"torch", "torchvision", "torchaudio", "triton", "pytorch-triton", "flash-attn", "transformer-engine"}


def kept(installed: dict[str, str]) -> list[str]:
    """``name==version`` of each, from the versions of all that is installed."""
    return [
        f"{name}=={version}"
        for name, version in sorted(installed.items())
        if name in BUILT_TOGETHER or _is_built_here(version)
    ]


def _is_built_here(version: str) -> bool:
    try:
        return Version(version).local is not None
    except InvalidVersion:
        return False


def mistake(installed: dict[str, str]) -> str | None:
    """Why ftx cannot be installed around this PyTorch."""
    wanted = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    torch = next(one for one in map(Requirement, wanted) if one.name == "torch")
    if "torch" not in installed:
        return "there is no PyTorch in this Python; `make setup` installs ftx with one"
    if not torch.specifier.contains(installed["torch"], prereleases=True):
        return f"PyTorch {installed['torch']} is here, and ftx needs torch{torch.specifier}; take a newer image"
    return None


def main() -> int:
    found = {canonicalize_name(one.metadata["Name"]): one.version for one in reversed(list(distributions()))}
    found.pop("ftx", None)
    if (why := mistake(found)) is not None:
        sys.stderr.write(f"install.sh: {why}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in kept(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
