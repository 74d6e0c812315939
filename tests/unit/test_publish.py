"""Publishing a file: all is judged before anything is sent, and what became of it is counted."""

import io
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ledger.errors import BadSettings
from producer.lines import BadInput
from producer.publish import publish_lines
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
    assert 0 <= result.seconds < 10


@pytest.mark.parametrize("content", [b"", b"\n \r\n"])
def test_an_empty_file_is_a_success(orders, publisher, content):
    """Nothing to publish is nothing wrong, and no broker is asked."""
    orders.write_bytes(content)
    result = publish_lines(publisher, orders)
    assert (result.lines, result.published, result.partitions, result.interrupted) == (0, 0, 0, False)


def test_one_bad_line_holds_back_all(orders, publisher, record):
    """Nothing of a file with a bad line is published; every bad line was reported before."""
    orders.write_bytes(GOOD % 1 + BAD + BAD)
    bad = []
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
    assert result.rejected == orders.parent / "orders.rejected.jsonl"
    assert result.rejected.read_bytes() == BAD + too_long + BAD.rstrip()


def test_only_bad_lines_ask_no_broker(orders, publisher, record):
    """Where nothing is left to send, nothing is connected."""
    orders.write_bytes(BAD)
    result = publish_lines(publisher, orders, skip_bad=True)
    assert (result.bad, result.published, result.partitions, result.interrupted) == (1, 0, 0, False)


def test_a_dry_run_sends_and_writes_nothing(orders, publisher, record):
    """A dry run judges every line, and that is all."""
    orders.write_bytes(GOOD % 1 + BAD)
    result = publish_lines(publisher, orders, dry_run=True, skip_bad=True)
    assert (result.lines, result.bad, result.published, result.rejected) == (2, 1, 0, None)
    with pytest.raises(BadInput):
        publish_lines(publisher, orders, dry_run=True)
    assert os.listdir(orders.parent) == ["orders.jsonl"]


def test_standard_input_is_published(publisher, record, tmp_path, monkeypatch):
    """`-` is standard input; its bad lines need a place of their own."""
    piped = GOOD % 1 + BAD
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
    with pytest.raises(BadInput, match="need a place"):
        publish_lines(publisher, Path("-"), skip_bad=True)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
    bad, place = [], tmp_path / "rejected"
    result = publish_lines(publisher, Path("-"), skip_bad=True, rejected=place, on_bad=bad.append)
    assert ids(record) == ["1"]
    assert str(bad[0]).startswith("stdin:2:1 ")
    assert (result.rejected, place.read_bytes()) == (place, BAD)


def test_a_named_pipe_is_read_like_standard_input(publisher, record, tmp_path):
    """A pipe, such as the shell's <(...), is read once and published."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(GOOD % 1 + GOOD % 2,))
    writer.start()
    publish_lines(publisher, pipe)
    writer.join()
    assert ids(record) == ["1", "2"]


@pytest.mark.parametrize("option", ["ids", "rejected"])
def test_the_input_is_never_overwritten(orders, publisher, option):
    """A place that is the input itself is refused."""
    orders.write_bytes(BAD)
    with pytest.raises(BadInput, match="is the input itself"):
        publish_lines(publisher, orders, skip_bad=True, **{option: orders})
    assert orders.read_bytes() == BAD


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [(b'"v"}\n', "isn't the line"), (b" 77}\n", "was changed"), (b"", "cut short")],
)
def test_a_file_that_changes_meanwhile_is_an_error(orders, record, edit, complaint):
    """A line that isn't in the second pass what it was in the first stops the sending."""
    blanks = b" " * (1 << 20) + b"\n"  # more than is read ahead
    kept = GOOD % 1 + blanks + b'{"type":"RegisterUser","user_id":'
    orders.write_bytes(kept + b'"u"}\n')
    publisher = RecordingPublisher(record, on_send=lambda count: orders.write_bytes(kept + edit))
    with pytest.raises(BadInput, match=complaint):
        publish_lines(publisher, orders)
    assert ids(record) == ["1"]


def test_progress_is_told_for_both_passes(orders, publisher):
    """Progress counts lines and bytes, and each pass ends at the whole."""
    orders.write_bytes(GOOD % 1 + GOOD % 2)
    told = []
    publish_lines(publisher, orders, progress=told.append)
    size = orders.stat().st_size
    assert told[0] == ("check", 0, 0, size)
    assert ("publish", 1, len(GOOD % 1), size) in told
    assert [each for each in told if each.bytes_done == size] == [
        ("check", 2, size, size),
        ("publish", 2, size, size),
    ]


def test_a_rate_is_kept_from_the_start(orders, record):
    """Commands go out no faster than asked for, the first ones too."""
    orders.write_bytes(b"".join(GOOD % number for number in range(20)))
    times = []
    publisher = RecordingPublisher(record, on_send=lambda count: times.append(time.monotonic()))
    publish_lines(publisher, orders, rate=100)
    assert 0.18 < times[-1] - times[0] < 5
    assert times[9] - times[0] > 0.05


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_is_more_than_nothing(orders, publisher, rate):
    """A rate of 0 would never end."""
    with pytest.raises(BadSettings, match="rate"):
        publish_lines(publisher, orders, rate=rate)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_sending_and_counts(orders, record, number):
    """Ctrl-C: nothing more is sent, what was sent is waited for and counted; a rerun completes it."""
    orders.write_bytes(b"".join(GOOD % number for number in range(9)))
    before = signal.getsignal(number)
    publisher = RecordingPublisher(record, on_send=lambda count: count == 4 and os.kill(os.getpid(), number))
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

    with pytest.raises(KeyboardInterrupt):
        publish_lines(RecordingPublisher(record, on_send=strike), orders)


def test_other_threads_publish_without_signals(orders, publisher, record):
    """Signal handlers belong to the main thread; publishing works in any."""
    orders.write_bytes(GOOD % 1)
    thread = threading.Thread(target=publish_lines, args=(publisher, orders))
    thread.start()
    thread.join()
    assert ids(record) == ["1"]
