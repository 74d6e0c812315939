"""A host's cache as its readers and its feeder meet the world: folders, forks, kills, and `cache check`.

What it promises to readers is in `test_cache_contract`.
"""

import os
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from subprocess import PIPE

import pytest

from ledger.cache import files
from ledger.cache.files import About, Files, packed
from ledger.cache.host_cache import HostCache
from ledger.cache.host_feeder import FeederLog, keep
from ledger.cache.host_view import HostView
from ledger.domain.shares import share_of
from ledger.errors import BadSettings, LedgerError, Stale, Unavailable
from ledger.store.tables.stock import StockLevel
from tests.conftest import database as new_database
from tests.postgres.test_cache_contract import GOODS, PATIENCE_S, Shop, eventually
from tests.support.cli import Cli
from tests.support.forks import forked
from tests.support.hosted import Hosted

READERS = 6
READ = """
import sys
from ledger.cache.host_cache import HostCache
cache = HostCache(sys.argv[1], max_staleness_s=60)
cache.start()
print("reads", flush=True)
while True:
    cache.get("g0")
"""


@pytest.fixture
def shop(ledger_dsn):
    shop = Shop(ledger_dsn)
    shop.lists(*GOODS)
    yield shop
    shop.conn.close()


class Silent(FeederLog):
    """Nobody listens."""


def feeds(dsn, folder, about=About(), **options):  # noqa: B008 (it can't be changed)
    """Keep the folder until it is loaded."""
    keep(dsn, folder, about, threading.Event(), Silent(), until_loaded=True, **options)


def test_a_folder_that_nobody_fills_is_named(tmp_path):
    """With the command that fills it; a reader doesn't make one."""
    with pytest.raises(Unavailable) as missing:
        HostCache(tmp_path / "none").start(timeout_s=0)
    assert missing.value.remedy == f"stockledger cache --into {tmp_path / 'none'}"
    assert not (tmp_path / "none").exists()


def test_a_folder_of_another_ledger_is_refused(shop, services, template_database, tmp_path):
    """Also where that one is further on; what is there stays as it is."""
    feeds(shop.dsn, tmp_path / "stock")
    with new_database(services, "other", template_database) as name:
        other = Shop(services.postgres.dsn(name))
        other.lists("tea")
        with pytest.raises(BadSettings, match="holds the stock of another ledger"):
            feeds(other.dsn, tmp_path / "stock")
        other.conn.close()
    with HostCache(tmp_path / "stock", max_staleness_s=60) as cache:
        assert cache.get("g0") == StockLevel("g0", 10, 2)


def test_a_folder_for_another_purpose_is_refused(shop, tmp_path):
    """Another share, or other bands, would be mixed with what is there."""
    feeds(shop.dsn, tmp_path / "stock", About(share=(0, 2)))
    for about in (About(share=(1, 2)), About(), About(share=(0, 2), low_below=5)):
        with pytest.raises(BadSettings, match=r"was filled with share=\(0, 2\)"):
            feeds(shop.dsn, tmp_path / "stock", about)


class Early(Hosted):
    """It has opened the folder before any feeder came."""

    def _opened(self, until):
        opened = super()._opened(until)
        self.feed()
        return opened


def test_a_reader_that_was_there_first_knows_what_the_folder_is_for(shop):
    """The share and the bands are the feeder's, whenever it comes."""
    cache = Early(shop.dsn, share=(0, 2), partition="mixed", low_below=20, max_staleness_s=60)
    Files(cache.folder, writes=True).close()
    with cache:
        ours = {goods_id for goods_id in GOODS if share_of(goods_id, 2) == 0}
        assert {*cache.in_band("low")} == ours
        with pytest.raises(ValueError, match="share"):
            cache.get(next(iter({*GOODS} - ours)))


def test_a_folder_of_another_build_is_refused(shop, tmp_path, monkeypatch):
    """By feeders and by readers."""
    feeds(shop.dsn, tmp_path / "stock")
    monkeypatch.setattr(files, "FORMAT", files.FORMAT + 1)
    with pytest.raises(BadSettings, match="another build"):
        feeds(shop.dsn, tmp_path / "stock")
    with pytest.raises(BadSettings, match="another build"):
        HostCache(tmp_path / "stock").start()


def test_a_folder_with_other_files_is_left_alone(shop, tmp_path):
    """Nothing of them is removed."""
    (tmp_path / "orders.jsonl").write_text("{}")
    with pytest.raises(BadSettings, match=r"other files, such as orders\.jsonl"):
        feeds(shop.dsn, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["orders.jsonl"]


def test_what_was_there_before_the_host_was_started_is_loaded_anew(shop, tmp_path):
    """Its clock began elsewhere, and nothing was synced: readers wait for a feeder, which begins anew."""
    folder = tmp_path / "stock"
    feeds(shop.dsn, folder)
    (folder / "boot").write_text(f"{files.FORMAT} another-run-of-the-host\n")
    (folder / "data.mdb").write_bytes(b"torn" * 1000)
    with pytest.raises(Unavailable, match="since this host was started"):
        HostCache(folder).start(timeout_s=0)
    feeds(shop.dsn, folder)
    with HostCache(folder, max_staleness_s=60) as cache:
        assert cache.get("g0") == StockLevel("g0", 10, 2)


def test_a_torn_file_is_named(shop, tmp_path):
    """With the way out."""
    folder = tmp_path / "stock"
    feeds(shop.dsn, folder)
    (folder / "data.mdb").write_bytes(b"torn" * 10_000)
    with pytest.raises(LedgerError) as torn:
        HostCache(folder).start(timeout_s=0)
    assert str(folder) in torn.value.message


def test_no_right_to_the_folder_is_named(shop, tmp_path):
    """As another user."""
    if os.getuid():
        pytest.skip("only root can become another user")
    tmp_path.chmod(0o700)
    feeds(shop.dsn, tmp_path / "stock")
    assert "can't be used: Permission denied" in forked(partial(refused, tmp_path / "stock"))


def refused(folder):
    os.setuid(65534)
    with pytest.raises(BadSettings) as no_right:
        Files(folder, writes=True)
    return no_right.value.message


def test_the_older_of_two_feeders_ends(shop):
    """It writes no more, and says why; readers notice nothing."""
    with Hosted(shop.dsn, max_staleness_s=60) as cache:
        cache.feed()
        assert cache.first_ends() == 4
        assert on_hand(cache, "g0", at_least=shop.adds("g0"), timeout_s=PATIENCE_S) == 11
        assert cache.status().loads == 1


def test_a_killed_feeder_is_named_and_its_next_one_goes_on(shop):
    """SIGKILL, again and again, while stock moves: nothing is lost, and nothing loaded anew."""
    with Hosted(shop.dsn, max_staleness_s=0.5) as cache:
        for number in range(1, 4):
            shop.adds("g0")
            cache.kill_feeder()
            token = shop.adds("g1")
            eventually(partial(is_said, cache, "its feeder is gone"))
            cache.feed()
            eventually(partial(cache.get, "g1", at_least=token))
            assert (on_hand(cache, "g0"), on_hand(cache, "g1")) == (10 + number, 10 + number)
        assert cache.status().loads == 1


def is_said(cache, why):
    """Whether a read is refused for that reason, with the command that helps."""
    try:
        cache.get("g0")
    except Stale as stale:
        return why in stale.cause and stale.remedy == f"stockledger cache --into {cache.folder}"
    return False


def on_hand(cache, goods_id, **options):
    level = cache.get(goods_id, **options)
    return level and level.on_hand


def test_killed_readers_leave_nothing_held(shop):
    """SIGKILL in the middle of reads: their places are free again, so what they read is used again."""
    with Hosted(shop.dsn, max_staleness_s=60) as cache:
        with readers(cache.folder) as processes:
            pids = {str(process.pid) for process in processes}
            eventually(lambda: pids & listed(cache))
            for process in processes:
                process.kill()
        eventually(lambda: not pids & listed(cache))
        assert on_hand(cache, "g0", at_least=shop.adds("g0"), timeout_s=PATIENCE_S) == 11


def listed(cache):
    """The processes that have a place among the readers."""
    return set(files_of(cache).env.readers().split())


def files_of(cache):
    """What it has open."""
    assert isinstance(cache._held, HostView)
    return cache._held.files


def test_two_thousand_readers_at_once_are_served(shop):
    """Each has a snapshot open; the writer goes on, and so does who comes next."""
    with Hosted(shop.dsn, max_staleness_s=60) as cache, ExitStack() as stack:
        for _ in range(2_048):
            stack.enter_context(files_of(cache).env.begin())
        assert on_hand(cache, "g0", at_least=shop.adds("g0"), timeout_s=PATIENCE_S) == 11


@contextmanager
def readers(folder):
    """Processes that read without a pause."""
    command = [sys.executable, "-c", READ, str(folder)]
    with ExitStack() as stack:
        made = [stack.enter_context(subprocess.Popen(command, stdout=PIPE)) for _ in range(READERS)]
        for process in made:
            stack.callback(process.kill)
            assert process.stdout
            assert process.stdout.readline() == b"reads\n"
        yield made


def test_a_child_of_who_had_it_open_is_told_so(shop):
    """It reads nothing, and its end takes nothing from the parent."""
    with Hosted(shop.dsn, max_staleness_s=60) as cache:
        assert forked(partial(said_by, cache)) == "call start() after the fork, and not before it"
        assert on_hand(cache, "g0", at_least=shop.adds("g0"), timeout_s=PATIENCE_S) == 11


def test_children_open_it_themselves(shop, tmp_path):
    """As gunicorn's workers do: it was made before the fork, and is started after it."""
    feeds(shop.dsn, tmp_path / "stock")
    cache = HostCache(tmp_path / "stock", max_staleness_s=60)
    assert [forked(partial(reads, cache)) for _ in range(2)] == ["10", "10"]


def reads(cache):
    with cache:
        return f"{on_hand(cache, 'g0')}"


def said_by(cache):
    try:
        cache.get("g0")
    except Stale as stale:
        return stale.remedy
    return "it was served"


def test_a_full_folder_is_named_and_gone_on_with(shop, tmp_path):
    """Readers keep what they have until it is too old; once there is space it goes on by itself."""
    if (
        os.getuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root can make a small file system")
    ballast = tmp_path / "ballast"
    try:
        fills(shop, tmp_path, ballast)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fills(shop, tmp_path, ballast):
    stop, told = threading.Event(), Heard()
    folder = tmp_path / "stock"
    thread = threading.Thread(target=keep, args=(shop.dsn, folder, About(), stop, told))
    thread.start()
    try:
        eventually(lambda: told.positions)
        with suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()
        shop.lists(*(f"more-{number}" for number in range(3000)))
        eventually(lambda: any("no space left" in each for each in told.troubles))
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path)], check=True)
        eventually(lambda: told.positions[-1] == 2)
    finally:
        stop.set()
        thread.join()


class Heard(Silent):
    """What was said."""

    def __init__(self):
        self.troubles = []
        self.positions = []

    def waiting(self, trouble, cause):
        """Note it."""
        self.troubles.append(trouble)

    def loaded(self, position, loads):
        """Note it."""
        self.positions.append(position)


def test_check_proves_what_the_cache_says(shop, tmp_path):
    """Word for word with the ledger as of its position; a value that is wrong is named with the right one."""
    folder, cli = tmp_path / "stock", Cli(shop.dsn, "localhost:1", "none")
    feeds(shop.dsn, folder)
    shop.adds("g0")  # after it: the cache isn't wrong, it is earlier
    answer = cli("cache", "check", "--into", folder)
    assert (answer["agrees"], answer["compared"]) == (True, 6)
    assert cli("cache", "check", "--into", folder, "--sample", "50%")["compared"] == 3
    with closing(Files(folder, writes=True)) as made, made.writing() as txn:
        txn.put(*packed(StockLevel("g3", 11, 2)), db=made.stock[made.head(txn).slot])
    wrong = cli("cache", "check", "--into", folder, exits=4)
    assert wrong["error"]["code"] == "SL-CACHE-002"
    assert wrong["difference"] == {
        "goods_id": "g3",
        "token": answer["token"],
        "cached": {"goods_id": "g3", "on_hand": 11, "version": 2},
        "recorded": {"goods_id": "g3", "on_hand": 10, "version": 2},
    }


def test_prune_forgets_the_changes_that_are_old_enough(shop):
    """With 0 seconds all of them; the horizon says so."""
    cli = Cli(shop.dsn, "localhost:1", "none")
    assert cli("cache", "prune")["pruned"] == 0
    shop.adds("g0")
    assert cli("cache", "prune", "--keep", "0")["pruned"] == 2
    assert cli("cache", "prune", "--keep", "0")["pruned"] == 0


def test_feed_keeps_a_share_with_its_bands(shop, tmp_path):
    """`cache` alone is `cache feed`; what isn't of the share isn't there."""
    cli = Cli(shop.dsn, "localhost:1", "none")
    words = ("--into", tmp_path / "stock", "--share", "0/2", "--low-below", "11", "--until-loaded")
    assert cli("cache", *words)["position"] == 1
    with HostCache(tmp_path / "stock", max_staleness_s=60) as cache:
        ours = {goods_id for goods_id in GOODS if share_of(goods_id, 2) == 0}
        assert cache.snapshot().keys() == cache.in_band("low").keys() == ours
        with pytest.raises(ValueError, match="is of share 1"):
            cache.get(min(set(GOODS) - ours))
    assert (
        cli("cache", "feed", "--into", tmp_path, "--share", "2/2", exits=2)["error"]["code"] == "SL-CLI-001"
    )
