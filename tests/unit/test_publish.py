"""Publishing a file: all is judged before anything is sent, and what became of it is counted."""

import errno
import io
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from ledger.domain.shares import share_of
from ledger.errors import BadSettings, BrokerUnavailable
from producer.jsonl import BadLine
from producer.lines import BadInput
from producer.partition_by import PartitionBy
from producer.progress import InputProgress
from producer.publish import publish_lines
from producer.routing import Routing
from tests.support.clock import Clock
from tests.support.recording_publisher import RecordingPublisher, recorded

GOOD = b'{"type":"RegisterUser","id":"%d","user_id":"u"}\n'
BAD = b'{"type":"RegisterUser","id":"bad"}\r\n'


@pytest.fixture
def orders(tmp_path):
    return tmp_path / "orders.jsonl"


@pytest.fixture
def record(tmp_path):
    return tmp_path / "sent"


@pytest.fixture
def publisher(record):
    return RecordingPublisher(record)


def ids(record):
    return [id for _, id, _, _ in recorded(record)]


def test_commands_go_out_in_file_order(orders, publisher, record):
    """Each line is sent once, in order, under its own source and id; the result counts them."""
    orders.write_bytes(GOOD % 1 + b"\n" + b'{"type":"CloseUser","id":"2","source":"crm","user_id":"u"}')
    result = publish_lines(publisher, orders)
    assert recorded(record) == [
        ("shop", "1", "RegisterUser", {"user_id": "u"}),
        ("crm", "2", "CloseUser", {"user_id": "u"}),
    ]
    assert (result.lines, result.published, result.bad, result.ids_made) == (2, 2, 0, 0)
    assert (result.topic, result.partitions, result.unacknowledged) == ("commands", 4, 0)
    assert not result.interrupted
    assert result.seconds >= 0


@pytest.mark.parametrize("content", [b"", b"\n \r\n"])
def test_an_empty_file_is_a_success(orders, publisher, content):
    """Nothing to publish is nothing wrong, and no broker is asked."""
    orders.write_bytes(content)
    result = publish_lines(publisher, orders)
    assert (result.lines, result.published, result.partitions, result.interrupted) == (0, 0, 0, False)


def test_one_bad_line_holds_back_all(orders, publisher, record):
    """Nothing of a file with a bad line is published; every bad line was reported before."""
    orders.write_bytes(GOOD % 1 + BAD + BAD)
    bad: list[BadLine] = []
    with pytest.raises(BadInput, match="2 of 3 lines") as caught:
        publish_lines(publisher, orders, on_bad=bad.append)
    assert "nothing was published" in caught.value.message
    assert "--skip-bad" in caught.value.remedy
    assert [str(line) for line in bad] == [
        f"{orders}:{number}:1 user_id: Field required" for number in (2, 3)
    ]
    assert not record.exists()
    assert os.listdir(orders.parent) == ["orders.jsonl"]


def test_bad_lines_can_be_set_aside(orders, publisher, record):
    """With `skip_bad` the good lines go out and the bad ones are kept byte for byte."""
    too_long = b" " * (2 << 20) + b"\xff\n"
    orders.write_bytes(GOOD % 1 + BAD + too_long + GOOD % 2 + BAD.rstrip())
    result = publish_lines(publisher, orders, skip_bad=True)
    assert ids(record) == ["1", "2"]
    assert (result.lines, result.published, result.bad, result.interrupted) == (5, 2, 3, False)
    assert result.bad_file == orders.parent / "orders.bad.jsonl"
    assert (orders.parent / "orders.bad.jsonl").read_bytes() == BAD + too_long + BAD.rstrip()


def test_only_bad_lines_ask_no_broker(orders, publisher, record):
    """Where nothing is left to send, nothing is connected."""
    orders.write_bytes(BAD)
    result = publish_lines(publisher, orders, skip_bad=True)
    assert (result.bad, result.published, result.partitions, result.interrupted) == (1, 0, 0, False)


def test_a_dry_run_sends_and_writes_nothing(orders, publisher, record):
    """A dry run judges every line, and that is all."""
    orders.write_bytes(GOOD % 1 + BAD)
    result = publish_lines(publisher, orders, dry_run=True, skip_bad=True)
    assert (result.lines, result.bad, result.published, result.bad_file) == (2, 1, 0, None)
    with pytest.raises(BadInput):
        publish_lines(publisher, orders, dry_run=True)
    assert os.listdir(orders.parent) == ["orders.jsonl"]


def test_a_dry_run_says_where_commands_would_go(orders, publisher):
    """By each way of routing: how many go to each partition; of the first ones the line, the id as far as it
    has one, key and reason. Bad lines have no place. Without a broker the partitions aren't known."""
    purchase = b'{"type":"PurchaseGoods","user_id":"u","goods_id":"tea","quantity":1}\n'
    orders.write_bytes(GOOD % 1 + BAD + purchase * 30)
    publisher.routing = Routing.of("mixed", ["tea"], "isolate", None)
    plans = publish_lines(publisher, orders, dry_run=True, skip_bad=True).plans
    assert plans
    assert [(each.lanes, {one.partition for one in each.first}) for each in plans.values()] == [
        ({}, {None})
    ] * 3
    publisher.connect()
    plans = publish_lines(publisher, orders, dry_run=True, skip_bad=True).plans
    assert plans
    user, tea = share_of("u", publisher.partitions), share_of("tea", publisher.partitions)
    assert plans[PartitionBy.USER].lanes == {user: 31}
    assert plans[PartitionBy.USER].first[:2] == [(1, "1", "u", user, "user"), (3, None, "u", user, "user")]
    assert plans[PartitionBy.GOODS].first[1] == (3, None, "tea", tea, "goods")
    assert plans[PartitionBy.MIXED].first[1] == (3, None, "tea", publisher.partitions - 1, "isolated")
    assert {len(each.first) for each in plans.values()} == {20}
    assert publish_lines(publisher, orders, skip_bad=True).plans is None


def test_standard_input_is_published(publisher, record, tmp_path, monkeypatch):
    """`-` is standard input; its bad lines need a place of their own."""
    piped = GOOD % 1 + BAD
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
    with pytest.raises(BadInput, match="need a place"):
        publish_lines(publisher, Path("-"), skip_bad=True)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
    bad: list[BadLine] = []
    place = tmp_path / "bad"
    result = publish_lines(publisher, Path("-"), skip_bad=True, bad_file=place, on_bad=bad.append)
    assert ids(record) == ["1"]
    assert str(bad[0]).startswith("stdin:2:1 ")
    assert (result.bad_file, place.read_bytes()) == (place, BAD)


def test_a_named_pipe_is_read_like_standard_input(publisher, record, tmp_path):
    """A pipe, such as the shell's <(...), is read once and published."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(GOOD % 1 + GOOD % 2,))
    writer.start()
    publish_lines(publisher, pipe)
    writer.join()
    assert ids(record) == ["1", "2"]


@pytest.mark.parametrize("rate", ["5", True])
def test_a_rate_is_a_number(orders, publisher, rate):
    """A wrong argument is named."""
    with pytest.raises(TypeError, match="rate must be a number"):
        publish_lines(publisher, orders, rate=rate)


def test_standard_input_that_is_closed_is_said(publisher, monkeypatch):
    """`publish - <&-`: there is no standard input at all."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(BadInput, match="can't read stdin: it is closed"):
        publish_lines(publisher, "-")


def test_standard_input_that_cannot_be_read_is_said(publisher, monkeypatch, tmp_path):
    """`publish - < folder`: the system's reason is in the error."""

    class Folder(io.RawIOBase):
        def readinto(self, buffer):
            raise IsADirectoryError(errno.EISDIR, "Is a directory")

        def readable(self):
            return True

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(Folder())))
    with pytest.raises(BadInput, match=r"stdin .*: Is a directory; nothing was published"):
        publish_lines(publisher, "-")


def test_paths_may_be_texts(orders, record):
    """A path is what `open` takes as one."""
    orders.write_bytes(GOOD % 1 + BAD)
    ids, bad_file = (str(orders.with_name(name)) for name in ("ids", "bad_file"))
    assert (
        publish_lines(
            RecordingPublisher(record), str(orders), skip_bad=True, ids=ids, bad_file=bad_file
        ).published
        == 1
    )
    assert orders.with_name("bad_file").read_bytes() == BAD


def test_bad_lines_are_nobody_elses_business(orders, publisher, tmp_path):
    """The file of bad lines is readable by its owner alone, and a planted link is refused, not followed."""
    orders.write_bytes(GOOD % 1 + BAD)
    place = orders.with_name("orders.bad.jsonl")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    place.symlink_to(victim)
    with pytest.raises(BadInput, match="links aren't followed"):
        publish_lines(publisher, orders, skip_bad=True)
    assert victim.read_bytes() == b"precious"
    place.unlink()
    publish_lines(publisher, orders, skip_bad=True)
    assert place.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("option", ["ids", "bad_file"])
def test_the_input_is_never_overwritten(orders, publisher, option):
    """A place that is the input itself is refused."""
    orders.write_bytes(BAD)
    with pytest.raises(BadInput, match="is the input itself"):
        publish_lines(publisher, orders, skip_bad=True, **{option: orders})
    assert orders.read_bytes() == BAD


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (b'"v"}\n', "was changed"),  # as good, but another one
        (b" 77}\n", "was changed"),
        (b"", "was changed|cut short"),
        (b'"u"} \n', "was changed"),
        (b'"u"', "was changed|cut short"),
    ],
)
def test_a_file_that_changes_meanwhile_is_an_error(orders, record, edit, complaint):
    """A line that isn't in the second pass what it was in the first stops the sending."""
    blanks = b" " * (1 << 20) + b"\n"  # more than is read ahead
    kept = GOOD % 1 + blanks + b'{"type":"RegisterUser","user_id":'
    orders.write_bytes(kept + b'"u"}\n')
    publisher = RecordingPublisher(record, on_send=lambda count: orders.write_bytes(kept + edit))
    with pytest.raises(BadInput, match=complaint) as caught:
        publish_lines(publisher, orders)
    assert ids(record) == ["1"]
    assert "of 1 sent: 1 acknowledged, 0 refused, 0 in the topic or not" in caught.value.message
    assert "nothing was published" not in caught.value.message
    assert "back as it was" in caught.value.remedy


WIDE = GOOD.replace(b"}", b',"name":"%s"}' % (b"n" * 150))
LONG = [WIDE % number for number in range(400)]
"""Several blocks: what is edited behind the first one is still to be read when the first line goes out."""


def rewritten(orders, lines):
    orders.write_bytes(b"".join(lines))


EDITS = {
    "another line": lambda orders: rewritten(orders, [*LONG[:300], WIDE % 7_777, *LONG[301:]]),
    "another file in its place": lambda orders: rewritten(orders, [WIDE % (n + 5_000) for n in range(400)]),
    "cut": lambda orders: os.truncate(orders, len(b"".join(LONG[:280]))),
    "emptied": lambda orders: os.truncate(orders, 0),
    "a line shifted": lambda orders: rewritten(orders, [*LONG[:300], b"\n", *LONG[300:]]),
    "all of them turned round": lambda orders: rewritten(orders, LONG[::-1]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_was_judged_is_what_is_sent(orders, record, edit):
    """Whatever happens to the file in place, only judged lines go out, in their order; the error has the
    account; once the file is as it was, the same again sends each under its first id."""
    rewritten(orders, LONG)
    publisher = RecordingPublisher(record, on_send=lambda count: EDITS[edit](orders) if count == 9 else None)
    with pytest.raises(BadInput) as caught:
        publish_lines(publisher, orders)
    sent = ids(record)
    assert 9 <= len(sent) < 400
    assert sent == [str(number) for number in range(len(sent))]
    assert f"of {len(sent)} sent: {len(sent)} acknowledged" in caught.value.message
    assert "nothing was published" not in caught.value.message
    rewritten(orders, LONG)
    assert publish_lines(RecordingPublisher(record), orders).published == 400


@pytest.mark.parametrize("edit", ["appended to", "replaced by name", "removed"])
def test_what_does_not_touch_the_judged_lines_ends_nothing(orders, record, edit):
    """Appended lines wait for the next run; a file that takes over the name isn't the one being read."""
    rewritten(orders, LONG)

    def strike(count):
        if count != 9:
            return
        if edit == "appended to":
            with orders.open("ab") as file:
                file.write(GOOD % 9_999)
        elif edit == "removed":
            orders.unlink()
        else:
            new = orders.with_name("new")
            rewritten(new, LONG[::-1])
            new.rename(orders)

    assert publish_lines(RecordingPublisher(record, on_send=strike), orders).published == 400
    assert ids(record) == [str(number) for number in range(400)]


def test_an_id_is_what_was_saved_whatever_becomes_of_the_sidecar(orders, record):
    """A sidecar that is removed or replaced while its lines are being sent changes no id."""
    lines = [
        b'{"type":"RegisterUser","user_id":"u%d","name":"%s"}\n' % (number, b"n" * 150)
        for number in range(400)
    ]
    rewritten(orders, lines)
    sidecar = orders.with_name("orders.jsonl.ids")
    saved = []

    def strike(count):
        if count == 9:
            saved.append(sidecar.read_bytes())
            sidecar.unlink()
            sidecar.write_bytes(b"nonsense")

    publish_lines(RecordingPublisher(record, on_send=strike), orders)
    assert ids(record) == [json.loads(line)["id"] for line in saved[0].splitlines()]


class Broken(Exception):
    pass


def test_an_exception_of_a_callback_carries_the_account(orders, record, monkeypatch):
    """What a program's own callback raises in mid-run comes out as it is, with what was sent in its notes."""
    rewritten(orders, LONG)
    monkeypatch.setattr("producer.progress.PROGRESS_INTERVAL_S", 0)

    def progress(now):
        if now.phase == "publish" and now.lines:
            raise Broken

    with pytest.raises(Broken) as caught:
        publish_lines(RecordingPublisher(record), orders, progress=progress)
    [note] = caught.value.__notes__
    assert note.startswith(f"of {len(ids(record))} sent: {len(ids(record))} acknowledged")
    assert "run the same again" in note


@pytest.mark.parametrize("sent", [0, 4])
def test_a_publisher_that_fails_carries_the_account(orders, record, sent, monkeypatch):
    """A fault of the broker says what was sent before it, and what a repeat does."""
    rewritten(orders, LONG)
    publisher = RecordingPublisher(record)
    post = publisher.post

    def fail(*arguments):
        if publisher.tally.acknowledged == sent:
            raise BrokerUnavailable("the broker is away")
        post(*arguments)

    monkeypatch.setattr(publisher, "post", fail)
    with pytest.raises(BrokerUnavailable) as caught:
        publish_lines(publisher, orders)
    told = f"of {sent} sent: {sent} acknowledged" if sent else "nothing was published"
    assert f"the broker is away; {told}" in caught.value.message
    assert "run the same again" in caught.value.remedy


def test_progress_is_told_for_both_passes(orders, publisher):
    """Progress counts lines and bytes, and each pass ends at the whole."""
    orders.write_bytes(GOOD % 1 + GOOD % 2)
    told: list[InputProgress] = []
    publish_lines(publisher, orders, progress=told.append)
    size = orders.stat().st_size
    assert told[0] == ("check", 0, 0, size)
    assert ("publish", 1, len(GOOD % 1), size) in told
    assert [each for each in told if each.bytes_done == size] == [
        ("check", 2, size, size),
        ("publish", 2, size, size),
    ]


def test_a_rate_is_kept_from_the_start(orders, record, monkeypatch):
    """Commands go out no faster than asked for, the first ones too."""
    orders.write_bytes(b"".join(GOOD % number for number in range(20)))
    monkeypatch.setattr("producer.dispatch.time", clock := Clock())
    clock.now = 1_000.0
    times = []
    publisher = RecordingPublisher(record, on_send=lambda count: times.append(clock.now - 1_000))
    monkeypatch.setattr(publisher, "poll", clock.sleep)
    publish_lines(publisher, orders, rate=100)
    assert times == pytest.approx([number / 100 for number in range(20)])


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_is_more_than_nothing(orders, publisher, rate):
    """A rate of 0 would never end."""
    with pytest.raises(BadSettings, match="rate"):
        publish_lines(publisher, orders, rate=rate)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_sending_and_counts(orders, record, number):
    """Ctrl-C: nothing more is sent, what was sent is waited for and counted; a rerun completes it."""
    orders.write_bytes(b"".join(GOOD % number for number in range(9)))
    before = signal.getsignal(number)

    def interrupt(count):
        if count == 4:
            os.kill(os.getpid(), number)

    publisher = RecordingPublisher(record, on_send=interrupt)
    result = publish_lines(publisher, orders)
    assert (result.published, result.unacknowledged, result.interrupted) == (4, 0, True)
    assert ids(record) == ["0", "1", "2", "3"]
    assert signal.getsignal(number) == before
    assert publish_lines(RecordingPublisher(record), orders).published == 9


def test_a_second_interrupt_is_obeyed_at_once(orders, record):
    """Whoever presses Ctrl-C twice doesn't want to wait for acknowledgements."""
    orders.write_bytes(b"".join(GOOD % number for number in range(9)))

    def strike(count):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        publish_lines(RecordingPublisher(record, on_send=strike), orders)
    assert "of 1 sent" in caught.value.__notes__[0]


def test_other_threads_publish_without_signals(orders, publisher, record):
    """Signal handlers belong to the main thread; publishing works in any."""
    orders.write_bytes(GOOD % 1)
    thread = threading.Thread(target=publish_lines, args=(publisher, orders))
    thread.start()
    thread.join()
    assert ids(record) == ["1"]
