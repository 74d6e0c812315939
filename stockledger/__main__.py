"""The door to the command: what must be so before anything else is imported.

What is wrong here would be a traceback later: a system or a Python that is not supported, a file of somebody
else's that hides one of our packages. And no code of the current folder ever runs: `python -m` puts that
folder first, and so does every Python that is started as a child, unless it is told not to.
"""

import os
import signal
import sys

PYTHON_MIN = (3, 11)
SYSTEMS = "Linux and macOS"


def main() -> None:
    """The console script."""
    os.environ["PYTHONSAFEPATH"] = "1"  # for our children: workers, and what multiprocessing starts for them
    if os.name != "posix":
        _refuse("SL-CLI-006", f"stockledger runs on {SYSTEMS}, this is {sys.platform}", "wsl --install")
    if sys.version_info < PYTHON_MIN:
        found, needed = (".".join(map(str, version[:2])) for version in (sys.version_info, PYTHON_MIN))
        _refuse(
            "SL-CLI-006", f"stockledger needs Python {needed} or later, this is {found}", "make clean demo"
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)  # until a verb has begun
    from stockledger import hidden

    if found := hidden():
        import shlex

        isolated = shlex.join([sys.executable, "-I", "-m", "stockledger", *sys.argv[1:]])
        _refuse("SL-CLI-007", found, isolated)
    from stockledger import cli

    cli.main()


def _end(number: int, _: object) -> None:
    """End as without a handler; but there the first process of a container doesn't hear the signal at all.

    The same as `ledger.signals.die`, which takes a while to be imported.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _refuse(code: str, message: str, remedy: str) -> None:
    """End as every verb does; `stockledger.verb.call` can't be imported here."""
    if "--json" in sys.argv:
        import json

        error = {"code": code, "message": message, "remedy": remedy, "retryable": False}
        sys.stdout.write(json.dumps({"ok": False, "error": error}) + "\n")
    sys.stderr.write(f"error {code}: {message}\n  next: {remedy}\n")
    sys.exit(2)


if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
        del sys.path[0]
    main()
