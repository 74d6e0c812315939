"""A file that isn't JSON lines: a sentence that says what it is, a way out that works, nothing published."""

import bz2
import gzip
import json
import lzma
import os
import shutil
import subprocess
from typing import Any

import pytest

from producer.formats import recognized
from producer.lines import BadInput
from producer.publish import publish_lines
from tests.support.recording_publisher import RecordingPublisher, recorded

COMMANDS = [{"type": "RegisterUser", "id": str(number), "user_id": f"ü{number}"} for number in range(3)]
LINES = "".join(json.dumps(command, ensure_ascii=False) + "\n" for command in COMMANDS)
CSV = "type,id,user_id\nRegisterUser,1,anna\n"

FILES: dict[str, tuple[str | bytes, str]] = {
    "array": (json.dumps(COMMANDS), "is a JSON array"),
    "array over lines": (json.dumps(COMMANDS, indent=1), "is a JSON array"),
    "array, an element a line": ("[\n" + ",\n".join(LINES.splitlines()) + "\n]\n", "is a JSON array"),
    "array, first element beside the bracket": (
        "[" + ",\n".join(LINES.splitlines()) + "]",
        "is a JSON array",
    ),
    "objects over lines": ("\n".join(json.dumps(c, indent=2) for c in COMMANDS), "JSON over several lines"),
    "an array inside": (
        '{"commands": [\n' + ",\n".join(LINES.splitlines()) + "\n]}",
        "JSON over several lines",
    ),
    "commas after lines": (LINES.replace("}\n", "},\n", 2), "has a comma after its first line"),
    "UTF-16": (LINES.encode("utf-16"), "is UTF-16 text"),
    "UTF-16 without mark": (LINES.encode("utf-16-le"), "is UTF-16 text"),
    "UTF-16, big end first": (LINES.encode("utf-16-be"), "is UTF-16 text"),
    "UTF-32": (LINES.encode("utf-32"), "is UTF-32 text"),
    "byte order mark": (LINES.encode("utf-8-sig"), "begins with a byte order mark"),
    "gzip": (gzip.compress(LINES.encode()), "is compressed with gzip"),
    "bzip2": (bz2.compress(LINES.encode()), "is compressed with bzip2"),
    "xz": (lzma.compress(LINES.encode()), "is compressed with xz"),
    "record separators": ("\x1e" + LINES.rstrip().replace("\n", "\n\x1e"), "a record separator"),
    "carriage returns": (LINES.replace("\n", "\r"), "has carriage returns"),
    "CSV": (CSV, "looks like CSV"),
    "CSV with semicolons and quotes": ('type;"id";user_id\nRegisterUser;1;anna\n', "looks like CSV"),
    "tabs": (CSV.replace(",", "\t"), "looks like CSV"),
    "XML": ("<commands/>", "looks like XML"),
    "Avro": (b"Obj\x01\x04\x16", "looks like an Avro file"),
    "binary": (b"\x93\x00\x01", "is no text"),
}


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("kind", FILES)
def test_another_format_is_refused_as_a_whole(tmp_path, kind, skip_bad):
    """What the file is, in one error; no line of it is judged, none is published, also with `skip_bad`."""
    content, said = FILES[kind]
    orders, record = tmp_path / "or ders.jsonl", tmp_path / "sent"
    bad: list[Any] = []
    orders.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput, match=said) as caught:
        publish_lines(RecordingPublisher(record), orders, skip_bad=skip_bad, on_bad=bad.append)
    assert "nothing was published" in caught.value.message
    assert bad == []
    assert os.listdir(tmp_path) == [orders.name]
    remedy, _, then = caught.value.remedy.partition(" && ")
    if not then:  # there is no filter for it
        assert '{"type": "RegisterUser"' in remedy
        return
    if shutil.which(remedy.split()[0]) is None:
        pytest.skip(f"{remedy.split()[0]} isn't here")
    subprocess.run(remedy, shell=True, check=True)
    new = tmp_path / "or ders.lines.jsonl"
    assert then == f"stockledger publish '{new}'"
    if kind != "an array inside":
        assert publish_lines(RecordingPublisher(record), new).published == len(COMMANDS)
        assert [fields["user_id"] for *_, fields in recorded(record)] == [c["user_id"] for c in COMMANDS]


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "\n\n",
        LINES,
        "\n" + LINES,
        LINES.replace("\n", "\r\n"),
        LINES.replace("{", " {"),
        LINES[:-30],
        LINES[:30],
        "hello\n" + LINES,
        "type, id\n" + LINES,
        "[1]\n" + LINES,
        "# orders, of monday\n" + LINES,
        '"x", "y"\n' + LINES,
        LINES.replace("}", "}}", 1),
        LINES.replace('{"type"', '{"type', 1),
    ],
)
def test_json_lines_with_bad_ones_are_still_json_lines(lines):
    """What may be a file of JSON lines is judged line by line, however bad its first line is."""
    assert recognized(lines.encode()) is None
