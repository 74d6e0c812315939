"""`asyncapi`: the contract of the topics, for other languages."""

from pathlib import Path
from typing import Annotated

import typer

from ledger.figures import counted
from stockledger.verb.call import Answer, Call, verb
from stockledger.verb.exits import OutputFailed, UsageError


@verb(connects=False, topic=True)
def asyncapi(
    call: Call,
    to: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="The PREFIX of `relay --to`; else the command topic's name."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write asyncapi.json and schemas/*.json there, over those that are there."
        ),
    ] = None,
) -> Answer:
    """Print the AsyncAPI document: topics, records, headers, keys and JSON Schemas.

    Needs no broker and no database. With --into it is written to a folder, with each schema as a file.
    """
    from stockledger import version
    from stockledger.contract.document import document, files, text

    if call.out.json and into is None:
        raise UsageError(
            "--json prints one object, and so does this verb without --into",
            remedy="leave --json out, or name a folder with --into",
        )
    settings = call.settings()
    topic = settings.only_topic("asyncapi")
    made = document(topic, to or topic, settings.group, version())
    if into is None:
        call.out.raw(text(made))
        return Answer()
    written = files(made)
    try:
        for name, content in written.items():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise OutputFailed(
            f"{error.filename} can't be written: {error.strerror}",
            remedy="name a folder that you may write to",
        ) from None
    call.out.say(f"{counted(len(written), 'file')} in {into}")
    return Answer({"into": str(into), "files": list(written)})
