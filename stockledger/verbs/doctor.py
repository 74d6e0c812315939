"""`doctor`: everything that the ledger stands on, looked at one by one."""

from stockledger.verb.call import Answer, Call, verb


@verb(topics=True, group=True)
def doctor(call: Call) -> Answer:
    """Look at all the ledger stands on; say what to fix."""
    from stockledger.doctor.examination import examine, verdict

    findings = []
    for finding in examine(call.settings()):
        findings.append(finding)
        call.out.say(
            f"{finding.level:4}",
            f"{finding.what:14}",
            finding.found,
            *([f"-> {finding.fix}"] if finding.fix else []),
        )
    return Answer({"findings": [finding._asdict() for finding in findings]}, error=verdict(findings))
