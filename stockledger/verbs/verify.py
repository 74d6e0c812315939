"""`verify`: prove that the ledger is what it promises."""

from pathlib import Path
from typing import Annotated

import typer

from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.moment import PLACE
from stockledger.verb.options import percent


@verb()
def verify(
    call: Call,
    topic: Annotated[bool, flag("--topic", "Compare with Kafka's records too, one by one.")] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar=PLACE, help="Only what came after that position, or then or later."),
    ] = None,
    sample: Annotated[
        float | None,
        typer.Option(parser=percent, metavar="PERCENT", help="Only so much of it, chosen at random."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, metavar="N", help="Choose as the run with this seed did."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, metavar="N", help="Connections side by side (default: a CPU each, 4 at most)."
        ),
    ] = None,
    anchor: Annotated[
        Path | None, typer.Option(metavar="FILE", help="If all is well, write the head's hash here.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="History up to this anchor must be unchanged.")
    ] = None,
) -> Answer:
    """Prove that the ledger is what it promises, rule by rule.

    Reads only, beside running workers. Keep anchors where the database's owner can't write. A run over a part
    proves that part: a full one finds what was added since under an older entry's number, too.
    """
    from stockledger.reports.verification import VerifyOptions, run_checks

    return run_checks(call, VerifyOptions(topic, since, sample, seed, jobs, anchor, against))
