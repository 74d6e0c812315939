"""Children of the test's own process, which have all that it has in memory."""

import os
import warnings
from collections.abc import Callable


def child(call: Callable[[], object]) -> int:
    """Call it in a child, and end that; its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
        pid = os.fork()
    if not pid:
        try:
            call()
        finally:
            os._exit(0)
    return pid


def forked(call: Callable[[], str]) -> str:
    """What the call returns, or raises, in a child."""
    reads, writes = os.pipe()

    def tell() -> None:
        try:
            text = call()
        except BaseException as fault:  # noqa: BLE001 (told to the parent)
            text = repr(fault)
        os.write(writes, text.encode())

    pid = child(tell)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        text = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return text
