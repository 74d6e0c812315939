"""What a program may hand to a `Publisher`. What it may not is named before anything is sent."""

from uuid import UUID

import uuid_utils

from ledger.domain.commands import COMMANDS, KEY_PART_MAX, Command, MessageKey, is_key_part
from ledger.domain.envelope import validate


def message_key(source: str, id: object) -> MessageKey:
    """The command's key; without an id a new one."""
    if id is None:
        id = uuid_utils.uuid7()
    if isinstance(id, UUID | uuid_utils.UUID):
        id = str(id)
    return MessageKey(require_key_part("source", source), require_key_part("id", id))


def require_key_part(name: str, value: object) -> str:
    """The value, which can be a source or an id."""
    if not isinstance(value, str):
        allowed = "text or a UUID" if name == "id" else "text"
        raise TypeError(f"{name} must be {allowed}, not {type(value).__name__}")
    if not is_key_part(value):
        raise ValueError(f"{name} must be 1 to {KEY_PART_MAX} visible ASCII characters")
    return value


def require_command(command: object) -> None:
    """It is a command whose fields hold: a changed copy or a made-up instance gets around a model's rules."""
    if not isinstance(command, Command) or command.NAME not in COMMANDS:
        raise TypeError(f"command must be one of {', '.join(COMMANDS)}, not {type(command).__name__}")
    try:
        validate(COMMANDS[command.NAME], dict(command))
    except ValueError as error:
        raise ValueError(f"command: {command.NAME}.{error}") from None


def seconds(timeout_s: object) -> float:
    """The time-out, which is a number from 0 on."""
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float):
        raise TypeError(f"timeout_s must be a number of seconds, not {type(timeout_s).__name__}")
    if not timeout_s >= 0:
        raise ValueError(f"timeout_s must be 0 or more seconds, not {timeout_s}")
    return timeout_s
