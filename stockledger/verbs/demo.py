"""`demo`: the main job in under a minute."""

from typing import TYPE_CHECKING, Annotated

from ledger.figures import count
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import Mismatch
from stockledger.verb.options import gateway_needed

if TYPE_CHECKING:
    from stockledger.demo.report import DemoReport


@verb(connects=False)
def demo(
    call: Call,
    keep: Annotated[
        bool, flag("--keep", "Then keep the shop open, with a dashboard to look at, until Ctrl-C.")
    ] = False,
) -> Answer:
    """See it work: a shop's day, duplicates, a killed worker.

    Needs nothing but this program: broker and database are brought along.
    """
    from dataclasses import asdict

    from stockledger.demo.story import run

    def shown(report: "DemoReport") -> None:
        call.out.table(("FACT", "VALUE", "MEANING"), _demo_rows(report))

    def opened(report: "DemoReport", address: str) -> None:
        shown(report)
        call.out.note(f"the shop is open: {address}/ui/ (Ctrl-C ends it, and leaves nothing)")

    if keep:
        with gateway_needed("demo --keep"):
            import gateway.server  # noqa: F401 (it runs in a process of its own)
    report = run(call.out.note, opened if keep else None)
    if not keep:
        shown(report)
    error = None if report.ok else Mismatch("the demo's ledger isn't as promised", remedy="report it, please")
    next = "stockledger doctor" if keep else "stockledger demo --keep"
    return Answer({"report": asdict(report)}, next=next, error=error)


def _demo_rows(report: "DemoReport") -> list[tuple[str, str, str]]:
    reasons = ", ".join(f"{reason} {count(n)}" for reason, n in report.rejected.items())
    red = "; ".join(report.red) or "all green, record by record against the topic"
    return [
        ("published", count(report.published), "records that the broker acknowledged"),
        ("delivered", count(report.delivered), "records that the journal accounts for"),
        ("applied", count(report.applied), "commands that changed something"),
        ("rejected", count(sum(report.rejected.values())), reasons),
        ("duplicate", count(report.duplicates), "deliveries that changed nothing"),
        ("lost", count(report.lost), "commands without an outcome"),
        ("wrong", count(report.wrong), "outcomes other than a sequential run of the file gives"),
        ("doubled", count(report.doubled), "goods whose stock differs from that run's"),
        ("verify", count(report.checks), red),
        ("killed", str(report.killed_pid), f"all was applied {report.recovered_s:.1f} s later"),
        ("seconds", f"{report.seconds:.1f}", "from start to proof"),
    ]
