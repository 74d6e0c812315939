"""Files that the program makes for its user: for no other eyes, and never written through a link.

In a folder that others may write to, a planted link would have us empty or fill a file of somebody else.
"""

import errno
import os
from pathlib import Path


def private(path: str, flags: int) -> int:
    """The `opener` of such a file for `open`: a new one has mode 0600. Raises OSError for a link."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, "it is a link, and links aren't followed", path) from None


def replace_text(file: Path, text: str) -> None:
    """Replace the file; whoever reads it sees the old or the new one, even after a crash. Raises OSError."""
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        new.unlink(missing_ok=True)  # left by a killed run whose process number came again
        with open(new, "x", encoding="utf-8", opener=private) as made:
            made.write(text)
            made.flush()
            os.fsync(made.fileno())
        new.replace(file)
        sync_folder(file.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make what was renamed in the folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
