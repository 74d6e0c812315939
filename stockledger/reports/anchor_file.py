"""The anchor as a file: one JSON object, replaced as a whole or not at all."""

import json
import os
from datetime import datetime
from pathlib import Path

from ledger.private import replace_text
from ledger.verify.anchor import Anchor
from stockledger.verb.exits import AnchorUnfit

FORMAT = "stockledger.anchor.v1"
HASH_BYTES = 32


def read_anchor(file: Path) -> Anchor:
    """The anchor that the file holds. Raises AnchorUnfit."""
    try:
        said = json.loads(file.read_text("utf-8"))
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']}, not {FORMAT}")
        position, time = said["position"], said["recorded_at"]
        anchor = Anchor(
            position,
            bytes.fromhex(said["hash"]),
            time and datetime.fromisoformat(time),
            said["group"],
            said["cluster_id"],
        )
        if type(position) is not int or position < 0 or len(anchor.hash) != HASH_BYTES:
            raise ValueError("its position or its hash is none")
    except OSError as error:
        raise AnchorUnfit(
            f"{file} can't be read: {error.strerror}",
            remedy="name a file that verify --anchor wrote",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise AnchorUnfit(
            f"{file} holds no anchor: {why}", remedy="take another copy of it, from where it is kept"
        ) from error
    return anchor


def require_writable(file: Path) -> None:
    """Raises AnchorUnfit if there is no way to write the file: before a long run, not after it."""
    if not os.access(file.parent, os.W_OK) or (file.exists() and not file.is_file()):
        raise AnchorUnfit(f"{file} can't be written", remedy="name a file in a folder that you may write to")


def write_anchor(file: Path, anchor: Anchor) -> None:
    """Replace the file; whoever reads it sees the old or the new one, even after a crash."""
    said = {
        "format": FORMAT, "position": anchor.position, "hash": anchor.hash.hex(),
        "recorded_at": anchor.recorded_at and anchor.recorded_at.isoformat(),
        "group": anchor.group, "cluster_id": anchor.cluster_id,
    }  # fmt: skip
    try:
        replace_text(file, json.dumps(said, indent=2) + "\n")
    except OSError as error:
        raise AnchorUnfit(
            f"{file} can't be written: {error.strerror}",
            remedy="name a file in a folder that you may write to",
        ) from error
