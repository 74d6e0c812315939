"""Sentences about one user: design, section 2, the rows RegisterUser and CloseUser."""

from ledger.domain import user
from ledger.domain.commands import CloseUser, RegisterUser
from ledger.domain.events import GoodsListed, UserClosed, UserRegistered
from ledger.domain.outcome import Reason
from tests.support.given import given

ANNA = UserRegistered(user_id="anna")
ANNA_LEFT = UserClosed(user_id="anna")


def test_a_new_user_is_registered():
    """Registering an unknown user is applied; the event carries id and name."""
    given().when(RegisterUser(user_id="anna", name="Anna")).then(UserRegistered(user_id="anna", name="Anna"))


def test_a_user_may_be_nameless():
    """The name is optional and stays unset when it is left out."""
    given().when(RegisterUser(user_id="anna")).then(UserRegistered(user_id="anna", name=None))


def test_a_user_is_registered_once():
    """An id that is taken is rejected, whatever the new name."""
    given(ANNA).when(RegisterUser(user_id="anna", name="Ann")).rejected(Reason.USER_ALREADY_EXISTS)


def test_a_closed_users_id_is_never_given_out_again():
    """A closed user still exists: registering the id again is rejected as taken, not applied."""
    given(ANNA, ANNA_LEFT).when(RegisterUser(user_id="anna")).rejected(Reason.USER_ALREADY_EXISTS)


def test_ids_are_compared_byte_for_byte():
    """Two spellings are two users."""
    given(ANNA).when(RegisterUser(user_id="Anna")).then(UserRegistered(user_id="Anna"))


def test_goods_and_users_share_no_names():
    """Goods of the same id don't take the user's id."""
    given(GoodsListed(goods_id="anna")).when(RegisterUser(user_id="anna")).then(ANNA)


def test_a_user_is_closed():
    """Closing an open user is applied."""
    given(ANNA).when(CloseUser(user_id="anna")).then(ANNA_LEFT)


def test_an_unknown_user_is_not_closed():
    """Closing an unknown user is rejected."""
    given(ANNA).when(CloseUser(user_id="bob")).rejected(Reason.USER_NOT_FOUND)


def test_a_user_is_closed_once():
    """Closing a closed user is rejected."""
    given(ANNA, ANNA_LEFT).when(CloseUser(user_id="anna")).rejected(Reason.USER_CLOSED)


def test_versions_of_a_user():
    """A user's stream is named after the id, and each event adds one to its version."""
    registered = user.evolve_user(user.UNKNOWN, ANNA)
    closed = user.evolve_user(registered, ANNA_LEFT)
    assert user.user_stream("anna") == "user-anna"
    assert (registered, closed) == (user.User(version=1), user.User(version=2, closed=True))
