"""Strict serializability, at random: three lanes bring the same goods, users and ids at once."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger import failpoints
from ledger.domain.commands import (
    AdjustStock,
    AnyCommand,
    CancelPurchase,
    CloseUser,
    ListGoods,
    PurchaseGoods,
    ReceiveStock,
    RegisterUser,
)
from ledger.domain.delivery import Batch, Record
from ledger.errors import Contended, Unavailable
from ledger.store.connection import database
from ledger.store.tables import lane
from tests.support.batches import Hole, says
from tests.support.stepper import PATIENCE_S, Listener, Session, Stepper

LANES, WINDOWS, WINDOW_SIZE = 3, 40, 24
ATTEMPTS_MAX = 50
RECENT = 16


@pytest.fixture(params=[True, False], ids=["one by one", "together"])
def stepper(ledger_dsn, request):
    with Stepper(ledger_dsn, apart=request.param) as stepper:
        yield stepper


class Story:
    """What is said, window by window: the few users and goods of this window and the last, ids also twice."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.said: list[tuple[str, AnyCommand]] = []

    def window(self, number: int) -> list[list[list[Record | Hole]]]:
        """For each lane its batches."""
        items = [self._item(number) for _ in range(WINDOW_SIZE)]
        return [self._cut(items[n::LANES]) for n in range(LANES)]

    def _cut(self, items: list[Record | Hole]) -> list[list[Record | Hole]]:
        batches = []
        while items:
            size = self.rng.randint(1, 5)
            batches.append(items[:size])
            items = items[size:]
        return batches

    def _item(self, window: int) -> Record | Hole:
        match self.rng.random():
            case dice if dice < 0.03:
                return Record(None, b"no command", None)
            case dice if dice < 0.05:
                return Hole(self.rng.randint(1, 3))
            case dice if dice < 0.20 and self.said:  # again
                return says(*self.rng.choice(self.said[-RECENT:]))
            case dice if dice < 0.28 and self.said:  # again, but changed
                say = self.rng.choice(self.said[-RECENT:])[0], self._command(window)
            case _:
                say = str(len(self.said)), self._command(window)
        self.said.append(say)
        return says(*say)

    def _command(self, window: int) -> AnyCommand:
        rng = self.rng
        user, goods = (f"{window - rng.randrange(2)}{rng.choice('ab')}" for _ in range(2))
        bought = [(id, said) for id, said in self.said[-RECENT:] if isinstance(said, PurchaseGoods)]
        if bought and rng.random() < 0.2:
            id, purchase = rng.choice(bought)
            return CancelPurchase(goods_id=rng.choice((purchase.goods_id, goods)), purchase_id=id)
        kinds: dict[AnyCommand, int] = {
            RegisterUser(user_id=user): 4,
            CloseUser(user_id=user): 1,
            ListGoods(goods_id=goods): 4,
            ReceiveStock(goods_id=goods, quantity=rng.randint(1, 4)): 4,
            AdjustStock(goods_id=goods, delta=rng.choice((-2, -1, 1))): 1,
            PurchaseGoods(user_id=user, goods_id=goods, quantity=rng.randint(1, 4)): 6,
        }
        return rng.choices(list(kinds), list(kinds.values()))[0]


class Restless(Listener):
    """Dawdles at random steps, and now and then fails there, even behind a commit."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng

    def hit(self, step: str) -> None:
        super().hit(step)
        dice = self.rng.random()
        if dice < 0.05:
            time.sleep(self.rng.random() * 0.003)
        elif dice > 0.998:
            raise failpoints.Injected


class Worker:
    """Applies one lane's batches, as a consumer would: after every fault it asks the lane where it is."""

    def __init__(self, session: Session, partition: int, rng: random.Random) -> None:
        self.session, self.partition, self.rng = session, partition, rng
        self.met: Counter[str] = Counter()

    def apply(self, *items: Record | Hole) -> None:
        batch = self.session.batch(self.partition, *items)
        for _ in range(ATTEMPTS_MAX):
            if self._try(batch) or self._where(batch) == batch.next_offset:
                self._moved_on(batch)
                return
        raise AssertionError(f"{ATTEMPTS_MAX} attempts in a row failed")

    def _try(self, batch: Batch) -> bool:
        listener = Restless(self.rng)
        try:
            listener.listen(lambda: self.session.apply(batch))
        except Contended as lost:
            self.met[lost.sqlstate or "changed"] += 1
        except (failpoints.Injected, Unavailable) as fault:
            self.met[type(fault).__name__] += 1
        else:
            return True
        finally:
            self.met["moved"] += "moved" in listener.steps
            self.met["head locked"] += "head locked" in listener.steps
        return False

    def _where(self, batch: Batch) -> int:
        if self.session.conn.closed:
            self.session.reconnect()
            claims = self.session.lanes.claims
            claims[self.partition] = self.session.lanes.claim(self.partition)
        with database.faults():
            return lane.resume(self.session.conn, batch.lane, self.session.lanes.claims[self.partition].epoch)

    def _moved_on(self, batch: Batch) -> None:
        claim = self.session.lanes.claims[self.partition]
        self.session.lanes.claims[self.partition] = claim._replace(next_offset=batch.next_offset)


def test_whatever_happens_at_once_could_have_happened_in_journal_order(stepper, seed):
    """Every outcome, reason, version, event, stock and account of three busy lanes, with pauses and faults
    at random points, is what `decide` gives for the same commands one after the other."""
    print(f"seed {seed}")
    story = Story(random.Random(seed))
    windows = [story.window(number) for number in range(1, WINDOWS + 1)]
    workers = [Worker(stepper.session(), n, random.Random(seed + n)) for n in range(LANES)]
    together = threading.Barrier(LANES, timeout=PATIENCE_S)

    def work(n: int) -> None:
        for window in windows:
            together.wait()
            for items in window[n]:
                workers[n].apply(*items)

    with ThreadPoolExecutor(LANES) as pool:
        for task in [pool.submit(work, n) for n in range(LANES)]:
            task.result()
    stepper.judge()
    met = sum((worker.met for worker in workers), Counter())
    print(dict(met), stepper.ask("SELECT outcome, reason, count(*) FROM ledger.outcomes GROUP BY 1, 2"))
    assert met["23505"]
    assert met["moved"]
    assert met["changed"]
    assert met["Injected"]
    assert not met["40P01"]
