"""What the demo found, compared with a sequential run of the same files."""

import json
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from consumer import records
from ledger.api import Ledger
from ledger.domain.commands import COMMANDS, MessageKey
from ledger.domain.decider import State, decide, evolve
from ledger.domain.envelope import request
from ledger.domain.outcome import Reason, Rejection
from ledger.store.connection import database
from ledger.store.connection.roundtrip import execute
from ledger.store.tables import processed_message
from ledger.verify.run import BUDGETS, verify
from stockledger.demo.parts import Parts
from stockledger.demo.voice import Voice


@dataclass(frozen=True)
class DemoReport:
    """What the demo did and found.

    Of the commands, `lost` have no outcome and `wrong` another one than a sequential run of the file gives;
    `doubled` goods have another stock than that run leaves. `red` are the checks of `verify` that failed.
    """

    published: int
    delivered: int
    applied: int
    rejected: dict[str, int]
    duplicates: int
    lost: int
    wrong: int
    doubled: int
    killed_pid: int
    recovered_s: float
    checks: int
    red: list[str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether everything is as promised."""
        accounted = self.applied + sum(self.rejected.values()) + self.duplicates
        whole = self.published == self.delivered == accounted
        return whole and not (self.lost or self.wrong or self.doubled or self.red)


def reported(
    voice: Voice, dsn: str, parts: Parts, *, files: tuple[Path, ...], published: int, begun: float
) -> DemoReport:
    """What the ledger has, beside what a sequential run of the files gives."""
    outcomes, stock = _predict(files)
    with (
        closing(database.connect(dsn, purpose="demo", budgets=BUDGETS)) as conn,
        Ledger(dsn) as ledger,
    ):
        status = ledger.status()
        found = execute(conn, processed_message.find_statement(outcomes))
        levels = {level.goods_id: level.on_hand for level in ledger.stock_levels(as_of=status.position)}
        topic = partial(records.deliveries, parts.kafka)
        checks = list(
            verify(conn, deliveries=topic, on_progress=lambda what, *_: voice.at(f"verify: {what}"))
        )
        return DemoReport(
            published=published,
            delivered=sum(status.deliveries.values()),
            applied=status.deliveries["applied"],
            rejected={str(reason): n for reason, n in sorted(status.rejected.items())},
            duplicates=status.deliveries["duplicate"],
            lost=len(outcomes.keys() - found.keys()),
            wrong=sum(found[key].reason != reason for key, reason in outcomes.items() if key in found),
            doubled=sum(levels.get(goods_id) != on_hand for goods_id, on_hand in stock.items()),
            killed_pid=parts.killed_pid,
            recovered_s=parts.recovered_s,
            checks=len(checks),
            red=[f"{check.name}: {check.difference}" for check in checks if not check.ok],
            seconds=time.monotonic() - begun,
        )


def _predict(files: Iterable[Path]) -> tuple[dict[MessageKey, Reason | None], dict[str, int]]:
    """What a sequential run of the files gives: each command's rejection (None: applied), and the stock."""
    state = State()
    outcomes: dict[MessageKey, Reason | None] = {}
    for path in files:
        for line in path.read_text().splitlines():
            fields = json.loads(line)
            model = COMMANDS[fields.pop("type")]
            key = MessageKey(fields.pop("source"), fields.pop("id"))
            if key in outcomes:
                continue
            decision = decide(state, request(key, model.model_validate(fields)))
            if isinstance(decision, Rejection):
                outcomes[key] = decision.reason
            else:
                outcomes[key] = None
                evolve(state, key, decision)
    return outcomes, {goods_id: goods.on_hand for goods_id, goods in state.goods.items()}
