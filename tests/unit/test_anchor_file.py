"""The anchor as a file: read as it was written, replaced as a whole, and refused where it is none."""

import json
import os
from datetime import UTC, datetime

import pytest

from ledger.verify.anchor import Anchor
from stockledger.reports.anchor_file import read_anchor, require_writable, write_anchor
from stockledger.verb.exits import DATA, AnchorUnfit, exit_code

ANCHOR = Anchor(7, bytes(range(32)), datetime(2010, 12, 1, 8, 26, tzinfo=UTC), "stockledger", "cluster-1")
YOUNG = Anchor(0, bytes(32), None, None, None)


@pytest.mark.parametrize("anchor", [ANCHOR, YOUNG])
def test_there_and_back(tmp_path, anchor):
    """What is read is what was written; nothing else is left in the folder."""
    file = tmp_path / "anchor.json"
    write_anchor(file, YOUNG)
    write_anchor(file, anchor)
    assert read_anchor(file) == anchor
    assert list(tmp_path.iterdir()) == [file]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_planted_link_is_not_followed(tmp_path):
    """Who may write to the folder can't have the anchor overwrite somebody else's file."""
    file, victim = tmp_path / "anchor.json", tmp_path / "victim"
    victim.write_text("precious")
    for name in (file.name, f".{file.name}.{os.getpid()}.new"):
        file.with_name(name).unlink(missing_ok=True)
        file.with_name(name).symlink_to(victim)
        write_anchor(file, ANCHOR)
        assert read_anchor(file) == ANCHOR
        assert not file.is_symlink()
    assert victim.read_text() == "precious"


def test_a_file_that_can_not_be_replaced_stays(tmp_path, monkeypatch):
    """Where writing fails in the middle, the old anchor is still there, whole, and alone."""
    file = tmp_path / "anchor.json"
    write_anchor(file, ANCHOR)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(AnchorUnfit, match=r"anchor\.json can't be written: No space left on device"):
        write_anchor(file, YOUNG)
    assert read_anchor(file) == ANCHOR
    assert list(tmp_path.iterdir()) == [file]


GOOD = {
    "format": "stockledger.anchor.v1", "position": 7, "hash": "00" * 32, "recorded_at": None,
    "group": None, "cluster_id": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "7",
        "null",
        "{}",
        json.dumps(GOOD)[:-1],
        *(json.dumps({name: value for name, value in GOOD.items() if name != left}) for left in GOOD),
        *(
            json.dumps(GOOD | wrong)
            for wrong in (
                {"format": "stockledger.anchor.v2"},
                {"position": "7"},
                {"position": -1},
                {"position": True},
                {"position": None},
                {"hash": "00" * 31},
                {"hash": "x" * 64},
                {"hash": None},
                {"recorded_at": "yesterday"},
                {"recorded_at": 5},
            )
        ),
        b"\xff\xfe",
    ],
)
def test_what_is_no_anchor_is_refused(tmp_path, text):
    """A file that is cut, altered or something else is named, with what to do; it is never taken for one."""
    file = tmp_path / "anchor.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AnchorUnfit, match=r"anchor\.json holds no anchor: ") as refused:
        read_anchor(file)
    assert refused.value.remedy
    assert exit_code(refused.value) == DATA


def test_a_good_file_is_read(tmp_path):
    """(The files above are refused for what was changed in this one.)"""
    file = tmp_path / "anchor.json"
    file.write_text(json.dumps(GOOD))
    assert read_anchor(file) == Anchor(7, bytes(32), None, None, None)


def test_a_file_that_is_not_there(tmp_path):
    """The file is named, and the command that writes one."""
    with pytest.raises(AnchorUnfit, match="No such file") as refused:
        read_anchor(tmp_path / "anchor.json")
    assert "verify --anchor" in refused.value.remedy


def test_an_unwritable_place_is_known_before(tmp_path):
    """A long run isn't begun when its anchor could not be written."""
    require_writable(tmp_path / "anchor.json")
    for file in (tmp_path, tmp_path / "nowhere" / "anchor.json"):
        with pytest.raises(AnchorUnfit):
            require_writable(file)
