"""`config`: every setting, and where it comes from."""

from ledger.errors import BadSettings
from stockledger.verb.call import Answer, Call, verb


@verb()
def config(call: Call) -> Answer:
    """Show every setting and where its value comes from.

    Needs no broker and no database. Secrets are masked.
    """
    from ledger import codec
    from stockledger.settings import strangers

    settings = call.settings()
    rows, warnings = settings.rows(), strangers()
    used = codec.named(settings.codec).name
    rows = [row._replace(value=used) if row.name == "codec" else row for row in rows]
    call.out.table(("SETTING", "VALUE", "FROM"), rows)
    for warning in warnings:
        call.out.note(f"warn  {warning}", "yellow")
    data = {"settings": [row._asdict() for row in rows], "warnings": warnings}
    try:
        settings.conninfo()
        settings.routing()
        if settings.kafka:
            settings.kafka_properties()
    except BadSettings as error:
        return Answer(data, error=error)
    return Answer(data)
