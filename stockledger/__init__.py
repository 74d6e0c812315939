"""The command: parse, call, print. The only floor that knows a terminal, and the only reader of settings."""


def version() -> str:
    """The version of the installed distribution."""
    from importlib import metadata  # not free, and only `--version` and `doctor` want it

    return metadata.version("stockledger")
