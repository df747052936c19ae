"""What writing takes and what the disk has: a run that would not fit stops before it writes, not in the middle."""

import errno
import shutil
from pathlib import Path

from ftx.errors import UserError

# Also EFBIG, the limit of a process on the size of its files, and EDQUOT, that of a user on a shared disk.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors puts the system's words into an error that is no OSError, and torch.save its own.
FULL_IN_WORDS = (
    *("No space left on device", "Disk quota exceeded", "File too large"),
    *("PytorchStreamWriter failed", "unexpected pos ", "iostream error"),
)


class DiskFull(UserError):
    """What was to be written does not fit; what was there before is untouched."""


def free_bytes(folder: Path) -> int:
    """What a user without special rights may still write in ``folder``, or where it would be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size_of(folder: Path) -> int:
    """Bytes of all files below; 0 where there is no such folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def in_words(count: float) -> str:
    """``1.5 GiB``; small amounts in MiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def says_full(error: BaseException) -> bool:
    """Whether a write failed because there was no room, as far as the error tells."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(words in str(error) for words in FULL_IN_WORDS)
