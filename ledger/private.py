"""Files that the program makes for its user: for no other eyes, and never written through a link.

In a folder that others may write to, a planted link would have us empty or fill a file of somebody else.
"""

import errno
import os


def private(path: str, flags: int) -> int:
    """The `opener` of such a file for `open`: a new one has mode 0600. Raises OSError for a link."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, "it is a link, and links aren't followed", path) from None
