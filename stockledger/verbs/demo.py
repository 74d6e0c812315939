"""`demo`: the main job in under a minute."""

from typing import TYPE_CHECKING

from ledger.figures import count
from stockledger.verb.call import Answer, Call, verb
from stockledger.verb.exits import Mismatch

if TYPE_CHECKING:
    from stockledger.demo import DemoReport


@verb(connects=False)
def demo(call: Call) -> Answer:
    """See it work: a shop's day, duplicates, a killed worker.

    Needs nothing but this program: broker and database are brought along.
    """
    from dataclasses import asdict

    from stockledger.demo import run

    report = run(call.out.note)
    call.out.table(("FACT", "VALUE", "MEANING"), _demo_rows(report))
    error = None if report.ok else Mismatch("the demo's ledger isn't as promised", remedy="report it, please")
    return Answer({"report": asdict(report)}, next="stockledger doctor", error=error)


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
