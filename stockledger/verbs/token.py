"""Who may use the HTTP door: `token add`, `token list`, `token revoke`."""

from pathlib import Path
from typing import Annotated

import typer

from ledger.figures import counted
from stockledger.verb.call import Answer, Call, verb
from stockledger.verb.exits import NotFound, UsageError
from stockledger.verb.options import TokensFile

app = typer.Typer(help="Who may use `serve`: add, list, revoke bearer tokens.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is.")]
LIST = "stockledger token list"


@app.command()
@verb(connects=False)
def add(
    call: Call,
    name: Name,
    source: Annotated[str, typer.Option(metavar="NAME", help="In whose name it sends commands.")],
    rights: Annotated[
        str, typer.Option(metavar="LIST", help="Of buy, read and operate, with commas between them.")
    ],
    tokens: TokensFile = None,
) -> Answer:
    """Make a token. It is printed once; the file has its hash alone.

    `buy` sends purchases, `read` asks for everything, `operate` sends all other commands and redrives.
    """
    from gateway.tokens import Right, add

    words = [word.strip() for word in rights.split(",")]
    if wrong := [word for word in words if word not in set(Right)]:
        raise UsageError(
            f"there is no right {wrong[0]}", remedy="the rights are buy, read and operate, such as buy,read"
        )
    made = add(_file(call, tokens), name, source, frozenset(Right(word) for word in words))
    call.out.say(made)
    call.out.note("it is shown this once: keep it where secrets are kept", "yellow")
    return Answer({"token": made, "name": name, "source": source, "rights": sorted(words)})


@app.command("list")
@verb(connects=False)
def list_(call: Call, tokens: TokensFile = None) -> Answer:
    """The tokens that there are, without what would let anybody in."""
    from gateway.tokens import read

    found = read(_file(call, tokens))
    rows = [(each.name, each.source, ",".join(each.rights), each.created_at) for each in found]
    call.out.table(("NAME", "SOURCE", "RIGHTS", "SINCE"), rows)
    call.out.note(counted(len(found), "token"), "dim")
    listed = [each.model_dump(mode="json", exclude={"sha256"}) for each in found]
    return Answer({"tokens": listed})


@app.command()
@verb(connects=False)
def revoke(call: Call, name: Name, tokens: TokensFile = None) -> Answer:
    """Let a token in no more: whatever serves notices within a second."""
    from gateway.tokens import revoke

    if not revoke(_file(call, tokens), name):
        raise NotFound(f"there is no token {name}", remedy=LIST)
    call.out.say("revoked", name)
    return Answer({"name": name})


def _file(call: Call, tokens: Path | None) -> Path:
    found = call.settings(tokens=str(tokens) if tokens else None).tokens
    if found is None:
        raise UsageError(
            "no tokens file is named", remedy="export STOCKLEDGER_TOKENS=tokens.json, or give it as --tokens"
        )
    return found
