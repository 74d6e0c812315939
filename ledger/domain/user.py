"""One user: registered once, closed once, never registered again."""

from msgspec import Struct

from ledger.domain.events import UserClosed, UserEvent, UserRegistered
from ledger.domain.outcome import Reason, Rejection
from ledger.domain.structs import RegisterUserStruct, UserStruct


class User(Struct, frozen=True, gc=False):
    """What `decide` knows of a user. Version 0: never registered."""

    version: int = 0
    closed: bool = False


UNKNOWN = User()


def user_stream(user_id: str) -> str:
    """The name of the user's stream."""
    return f"user-{user_id}"


def decide_user(user: User, command: UserStruct) -> UserEvent | Rejection:
    """What the command does to this user: one event, or the reason why not. Pure."""
    if isinstance(command, RegisterUserStruct):
        if user.version:
            return Rejection(Reason.USER_ALREADY_EXISTS)
        return UserRegistered(user_id=command.user_id, name=command.name)
    if missing := may_not_act(user):
        return missing
    return UserClosed(user_id=command.user_id)


def may_not_act(user: User) -> Rejection | None:
    """Why this user can't act, or None."""
    if not user.version:
        return Rejection(Reason.USER_NOT_FOUND)
    return Rejection(Reason.USER_CLOSED) if user.closed else None


def evolve_user(user: User, event: UserEvent) -> User:
    """The user after the event. Pure."""
    return User(user.version + 1, isinstance(event, UserClosed))
