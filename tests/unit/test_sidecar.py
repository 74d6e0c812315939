"""Ids for lines without one: no line ever gets two, whatever dies when."""

import errno
import fcntl
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from producer import sidecar
from producer.lines import BadInput, Line
from producer.publish import publish_lines
from producer.sidecar import Remembered, Sidecar, SidecarMismatch
from tests.support.recording_publisher import RecordingPublisher, recorded

ROOT = Path(__file__).parents[2]
USERS = b"".join(b'{"type":"RegisterUser","user_id":"u%d"}\n' % number for number in range(3))


class Shop:
    """A file of orders, what was published from it, and its sidecar."""

    def __init__(self, folder):
        self.orders = folder / "orders.jsonl"
        self.ids = folder / "orders.jsonl.ids"
        self.new_ids = folder / "orders.jsonl.ids.new"
        self.record = folder / "sent"
        self.orders.write_bytes(USERS)

    def publish(self, **options):
        publisher = RecordingPublisher(self.record, source=options.pop("source", "shop"))
        return publish_lines(publisher, self.orders, **options)

    def sent(self):
        """The ids that went out for each user."""
        ids: dict[str, set[str]] = {}
        for _, id, _, fields in recorded(self.record):
            ids.setdefault(fields["user_id"], set()).add(id)
        return ids


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def line(number, text=b"x"):
    return Line(number, text, 0, len(text))


# Across runs


def test_a_second_run_sends_the_same_ids(shop):
    """Running the same command again publishes each line under the id it had; nothing new is made."""
    assert shop.publish().ids_made == 3
    before = shop.ids.read_bytes()
    assert shop.publish().ids_made == 0
    assert [len(ids) for ids in shop.sent().values()] == [1, 1, 1]
    assert shop.ids.read_bytes() == before


def test_the_sidecar_says_what_it_remembers(shop):
    """One JSON line for each line without an id: its number, id, the digest of its bytes, and its source."""
    shop.orders.write_bytes(b'\n{"type":"CloseUser","id":"7","user_id":"u"}\n' + USERS)
    shop.publish()
    entries = [json.loads(entry) for entry in shop.ids.read_text().splitlines()]
    assert [entry["line"] for entry in entries] == [3, 4, 5]
    assert entries[0]["sha256"] == hashlib.sha256(USERS.split(b"\n")[0]).hexdigest()
    assert {entry["source"] for entry in entries} == {"shop"}
    assert {(entry["id"],) for entry in entries} == {tuple(ids) for ids in shop.sent().values()} - {("7",)}


def test_new_lines_get_ids_and_old_ones_keep_theirs(shop):
    """Lines may be appended and bad ones repaired in place: only what had no id gets one."""
    first, *rest = USERS.splitlines(keepends=True)
    shop.orders.write_bytes(first + b'{"type":"RegisterUser"}\n' + rest[0].rstrip())
    shop.publish(skip_bad=True)
    before = shop.sent()
    shop.orders.write_bytes(first + b'{"type":"RegisterUser","user_id":"late"}\n' + b"".join(rest))
    assert shop.publish().ids_made == 2
    after = shop.sent()
    assert before.items() <= after.items()
    assert [len(ids) for ids in after.values()] == [1, 1, 1, 1]


@pytest.mark.parametrize("end", [b"\r\n", b"\n\n"])
def test_another_line_end_is_no_edit(shop, end):
    """The digest covers a line's content: CRLF changes nothing, nor does a blank line at the end."""
    shop.publish()
    if end == b"\r\n":
        shop.orders.write_bytes(USERS.replace(b"\n", end))
    else:
        shop.orders.write_bytes(USERS + b"\n")
    assert shop.publish().ids_made == 0


@pytest.mark.parametrize(
    "edited",
    [
        USERS.replace(b"u1", b"u9"),
        b"\n" + USERS,
        USERS.split(b"\n", 1)[1],
        USERS[: USERS.rindex(b"{")],
        USERS.replace(b'"user_id":"u1"', b'"user_id":"u1","id":"1"'),
        USERS.replace(b'"user_id":"u2"', b'"user_id":"u2","id":"2"'),
        USERS.replace(b'"user_id":"u1"', b'"user_id":"u1","source":"shop"'),
        b"",
        b'{"type":"CloseUser","id":"1","user_id":"u"}\n',
    ],
)
def test_an_edited_line_is_refused(shop, edited):
    """A line that has an id and was changed, moved or removed could buy twice: nothing is sent."""
    shop.publish()
    before = shop.ids.read_bytes(), shop.record.read_bytes()
    shop.orders.write_bytes(edited)
    with pytest.raises(SidecarMismatch) as caught:
        shop.publish()
    assert "orders.jsonl" in caught.value.message
    assert "restore" in caught.value.remedy
    assert "remove" not in caught.value.remedy  # nobody knows here what was sent
    assert (shop.ids.read_bytes(), shop.record.read_bytes()) == before
    assert not shop.new_ids.exists()


def test_another_source_is_refused(shop):
    """The same id under another source would be another command."""
    shop.publish()
    with pytest.raises(SidecarMismatch, match="source shop"):
        shop.publish(source="other")


def test_a_dry_run_checks_and_writes_nothing(shop):
    """A dry run counts the ids it would make, refuses an edited file, and leaves no trace."""
    assert shop.publish(dry_run=True).ids_made == 3
    assert not shop.ids.exists()
    assert not shop.new_ids.exists()
    shop.publish()
    shop.orders.write_bytes(b"\n" + USERS)
    with pytest.raises(SidecarMismatch):
        shop.publish(dry_run=True)


def test_a_link_shares_the_sidecar_of_its_file(shop, tmp_path):
    """One file has one sidecar, by whichever name it is published."""
    shop.publish()
    link = tmp_path / "elsewhere"
    link.symlink_to(shop.orders)
    assert publish_lines(RecordingPublisher(shop.record), link).ids_made == 0
    assert [len(ids) for ids in shop.sent().values()] == [1, 1, 1]


def test_standard_input_needs_a_place_for_ids(shop, tmp_path, monkeypatch):
    """Piped lines without an id are refused unless `ids` names a sidecar; with it they keep their ids."""
    with shop.orders.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        with pytest.raises(BadInput, match="stdin:1 has no id") as caught:
            publish_lines(RecordingPublisher(shop.record), Path("-"))
        assert "--ids" in caught.value.remedy
        assert not recorded(shop.record)
        for _ in range(2):
            file.seek(0)
            publish_lines(RecordingPublisher(shop.record), Path("-"), ids=tmp_path / "ids")
    assert [len(ids) for ids in shop.sent().values()] == [1, 1, 1]
    assert len(recorded(shop.record)) == 6


# Names that lead here, or only seem to

WITHOUT_IDS = """
import sys
from pathlib import Path
from producer.lines import BadInput
from producer.publish import publish_lines
from tests.support.recording_publisher import RecordingPublisher

try:
    print(publish_lines(RecordingPublisher(Path(sys.argv[1])), sys.argv[2]).ids)
except BadInput as error:
    print(error.message)
"""
MANY = '"$(yes "$(cat "$ORDERS")" | head -n 6000)"'


def published_by(shop, name, redirect):
    """What a process of its own says; the shell gives it the descriptors that `redirect` describes."""
    script = f'exec "$0" -c "$1" "$2" {name} {redirect}'
    words = ["bash", "-c", script, sys.executable, WITHOUT_IDS, shop.record]
    environment = os.environ | {"ORDERS": str(shop.orders)}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_another_name_of_a_file_shares_its_sidecar(shop, name):
    """A name that the shell opened the file under leads to the file, and so to its ids."""
    for _ in range(2):
        published_by(shop, name, '< "$ORDERS"')
    published_by(shop, "/dev/fd/9", '9< "$ORDERS"')
    shop.publish()
    assert [len(ids) for ids in shop.sent().values()] == [1, 1, 1]
    assert sorted(os.listdir(shop.orders.parent)) == ["orders.jsonl", "orders.jsonl.ids", "sent"]


@pytest.mark.parametrize(
    ("name", "redirect"),
    [
        ("/dev/stdin", '< <(cat "$ORDERS")'),
        ("/dev/stdin", f"<<< {MANY}"),
        ("/dev/fd/8", f"8<<< {MANY}"),
        ("/dev/fd/7", '7< <(cat "$ORDERS")'),
        ("-", '< "$ORDERS"'),
    ],
)
def test_what_no_name_leads_to_keeps_no_ids(shop, name, redirect):
    """A pipe, and a here-document's file, which is deleted already: its lines need ids, nothing is sent."""
    assert "has no id" in published_by(shop, name, redirect)
    assert not recorded(shop.record)
    assert os.listdir(shop.orders.parent) == ["orders.jsonl"]


def test_a_name_that_was_given_to_another_file_keeps_no_ids(shop, monkeypatch):
    """The file that is read was replaced while it was opened: the ids beside the name aren't its own."""
    opened = Path.open

    def replaced(path, *arguments):
        file = opened(path, *arguments)
        shop.orders.rename(shop.orders.with_name("old"))
        shop.orders.touch()
        return file

    monkeypatch.setattr(Path, "open", replaced)
    with pytest.raises(BadInput, match="has no id"):
        shop.publish()


def test_one_hard_link_of_several_keeps_no_ids(shop):
    """Each name would have ids of its own, and both would buy; with `ids` named, one place serves both."""
    other = shop.orders.with_name("other.jsonl")
    other.hardlink_to(shop.orders)
    with pytest.raises(BadInput, match="has no id"):
        shop.publish()
    for path in (shop.orders, other):
        publish_lines(RecordingPublisher(shop.record), path, ids=shop.ids)
    assert [len(ids) for ids in shop.sent().values()] == [1, 1, 1]


def test_a_file_that_is_mounted_alone_keeps_no_ids(shop, monkeypatch):
    """`docker run -v .../orders.jsonl:/orders.jsonl`: the folder around it goes with the container."""
    odd = shop.orders.rename(shop.orders.with_name("or ders\\.jsonl"))
    mounts = shop.orders.with_name("mountinfo")
    escaped = str(odd).replace("\\", "\\134").replace(" ", "\\040")
    mounts.write_text(f"1 1 0:21 / / rw - ext4 /dev/a rw\n2 1 0:21 /x {escaped} rw - ext4 /dev/a rw\n")
    monkeypatch.setattr("producer.lines.MOUNTS", mounts)
    with pytest.raises(BadInput, match="has no id"):
        publish_lines(RecordingPublisher(shop.record), odd)
    mounts.write_text(mounts.read_text().splitlines()[0])
    assert publish_lines(RecordingPublisher(shop.record), odd).ids_made == 3


# Planted files


@pytest.mark.parametrize("name", ["orders.jsonl.ids", "orders.jsonl.ids.new"])
def test_a_planted_link_is_never_followed(shop, tmp_path, name):
    """Whoever may write to the folder can't have us empty or fill somebody else's file."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (shop.orders.parent / name).symlink_to(victim)
    with pytest.raises(BadInput, match="links aren't followed"):
        shop.publish()
    assert victim.read_bytes() == b"precious"
    assert not recorded(shop.record)


@pytest.mark.parametrize("plant", [os.mkfifo, lambda path: path.hardlink_to(path.with_name("victim"))])
def test_what_no_run_has_left_is_in_the_way(shop, plant):
    """A pipe or another name of somebody's file in the new sidecar's place is refused, not used."""
    victim = shop.orders.with_name("victim")
    victim.write_bytes(b"precious")
    plant(shop.new_ids)
    with pytest.raises(BadInput, match="is in the way") as caught:
        shop.publish()
    assert caught.value.remedy == f"rm {shop.new_ids}"
    assert victim.read_bytes() == b"precious"


def test_the_sidecar_is_readable_by_its_owner_alone(shop):
    """Ids are what a stranger would need to take a purchase's place."""
    shop.publish()
    assert shop.ids.stat().st_mode & 0o777 == 0o600


def test_ids_never_take_the_place_of_a_device(shop):
    """`--ids /dev/null` would replace the device by a file."""
    with pytest.raises(BadInput, match="is no file"):
        shop.publish(ids=Path("/dev/null"))


# Crashes

CRASHING_RUN = """
import os, signal, sys
from pathlib import Path
from producer.publish import publish_lines
from tests.support.recording_publisher import RecordingPublisher

orders, record, last_step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
step = 0

def strike(*_):
    global step
    if step == last_step:
        os.kill(os.getpid(), signal.SIGKILL)
    step += 1

def struck(function):
    def around(*arguments):
        strike()
        result = function(*arguments)
        strike()
        return result
    return around

os.replace, os.fsync = struck(os.replace), struck(os.fsync)
publish_lines(RecordingPublisher(record, on_send=strike), orders)
"""
STEPS = 9  # before and after: file synced, renamed, folder synced; after each of three sends


def crash(shop, step):
    """Publish in another process that kills itself at its `step`-th chance."""
    arguments = [sys.executable, "-c", CRASHING_RUN, shop.orders, shop.record, str(step)]
    return subprocess.run(arguments, cwd=ROOT, check=False).returncode


@pytest.mark.parametrize("appends", [False, True])
@pytest.mark.parametrize("step", range(STEPS + 1))
def test_a_kill_at_any_step_makes_no_second_id(shop, step, appends):
    """SIGKILL before or after each step of the sidecar and after each send: the next run sends the ids that
    are out already, and every line; also when the killed run was one that appended to an older sidecar."""
    if appends:
        shop.publish()
        shop.orders.write_bytes(USERS + USERS.replace(b"u", b"v").replace(b"vser", b"user"))
    survived = crash(shop, step)
    assert survived == (0 if step == STEPS and not appends else -signal.SIGKILL)
    assert shop.new_ids.exists() == (step < 3)
    shop.publish()
    assert [len(ids) for ids in shop.sent().values()] == [1] * (6 if appends else 3)
    assert not shop.new_ids.exists()


def test_ids_are_durable_before_the_first_send(shop, monkeypatch):
    """File synced, renamed, folder synced, in this order and all before a command goes out."""
    steps = []
    synced, replaced = os.fsync, os.replace

    def fsync(fd):
        steps.append(os.readlink(f"/proc/self/fd/{fd}"))
        synced(fd)

    def replace(*names):
        steps.append("rename")
        replaced(*names)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    publisher = RecordingPublisher(shop.record, on_send=lambda count: steps.append("send"))
    publish_lines(publisher, shop.orders)
    folder = str(shop.orders.parent)
    assert steps == [str(shop.new_ids), "rename", folder, "send", "send", "send"]
    steps.clear()
    publish_lines(publisher, shop.orders)
    assert steps == [folder, "send", "send", "send"], (
        "the run before may have died before it synced the folder"
    )


def test_two_runs_at_once_share_their_ids_or_one_is_refused(shop, monkeypatch):
    """While one run makes ids no other one may; the one that comes later finds them."""
    with Sidecar(shop.ids, "orders.jsonl") as first:
        first.remember(line(1), "shop")
        with pytest.raises(BadInput, match="another process"), Sidecar(shop.ids, "orders.jsonl") as second:
            second.remember(line(1), "shop")
        first.save()
        with Sidecar(shop.ids, "orders.jsonl") as third:
            third.remember(line(1), "shop")
            assert third.made == 0


def test_a_run_that_opened_a_file_just_renamed_is_refused(shop, monkeypatch):
    """Between open and lock the other run may put the file in its place: it isn't truncated then."""
    locked = fcntl.flock

    def late(file, operation):
        with monkeypatch.context() as undone:
            undone.setattr(fcntl, "flock", locked)
            os.replace(shop.new_ids, shop.ids)
        locked(file, operation)

    shop.new_ids.write_bytes(b"ids of the other run\n")
    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(BadInput, match="another process"), Sidecar(shop.ids, "orders.jsonl") as second:
        second.remember(line(1), "shop")
    assert shop.ids.read_bytes() == b"ids of the other run\n"


# Trouble


def test_a_place_that_cannot_be_written_is_refused(shop, tmp_path):
    """Without a place for the ids nothing is sent; the error names it and the way out."""
    with pytest.raises(BadInput, match="can't keep the ids") as caught:
        shop.publish(ids=tmp_path / "nowhere" / "ids")
    assert "--ids" in caught.value.remedy
    assert not recorded(shop.record)


def test_a_full_disk_is_refused(shop, monkeypatch):
    """Ids that can't be written send nothing, and the error is about the disk, whenever it is noticed."""

    class FullDisk(io.BytesIO):
        name = str(shop.new_ids)

        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            if not self.closed:  # like a file: it is closed all the same
                super().close()
                self.flush()

    monkeypatch.setattr(sidecar, "_locked", lambda path, name: FullDisk())
    with pytest.raises(BadInput, match=r"can't keep the ids in .*: No space left"):
        shop.publish()
    assert not recorded(shop.record)


@pytest.mark.parametrize(
    "damage", [b"{}\n", b'{"line":1', b"\xff\n", b'{"line":1,"id":"a b","sha256":"","source":"s"}']
)
def test_a_damaged_sidecar_is_refused(shop, damage):
    """What can't be read could hide an id that is out already."""
    shop.ids.write_bytes(damage)
    with pytest.raises(BadInput, match=r"orders\.jsonl\.ids:1"):
        shop.publish()
    assert not recorded(shop.record)


def test_both_passes_take_little_memory(tmp_path):
    """Old and new ids are merged and looked up line by line, in memory that holds a small part of them."""
    path = tmp_path / "ids"
    tracemalloc.start()
    for _ in range(2):
        with Sidecar(path, "orders.jsonl") as made:
            for number in range(1, 15_001):
                made.remember(line(number), "shop")
            made.save()
    remembered = Remembered(path, "orders.jsonl")
    assert all(remembered.find(line(number), "shop") for number in range(1, 15_001))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000  # pydantic's cache of strings; 15,000 entries take three times as much
