"""librdkafka's own list of its properties, and its own judgement of a value: no client, no thread, no socket.

The one place that asks: for the settings, and for a property that the client refused.

Read by ctypes from the library that confluent-kafka carries. Where a build hides the functions, the list is
empty and nothing is judged here; the client itself then refuses what is wrong, only later and less clearly.
"""

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from difflib import get_close_matches
from functools import cache

CONF_OK = 0
COLUMNS = 6
SCOPES = {"*", "C", "P", "S"}
NO_TEXT = "see dedicated API"  # callbacks and the like, which can't be given as text
SECRET_WORDS = ("password", "secret", "passphrase", "key.pem", "oauthbearer.config", "oauthbearer.extensions")
SECRET = "****"


@cache
def known() -> frozenset[str]:
    """Every property of this librdkafka that can be set by text; empty where it can't be asked."""
    library = _library()
    names = set()
    for line in _described(library).splitlines() if library else ():
        cells = [cell.strip() for cell in line.split("|", COLUMNS - 1)]
        if len(cells) == COLUMNS and cells[1] in SCOPES and NO_TEXT not in cells[-1]:
            names.add(cells[0])
    return frozenset(names)


def dotted(underscored: str) -> str:
    """The property that an environment variable means: `sasl_username` is `sasl.username`.

    A few names have an underscore themselves (`log_level`), so the known ones are asked first.
    """
    if "_" not in underscored:
        return underscored
    as_written = {name.replace(".", "_"): name for name in known()}
    return as_written.get(underscored, underscored.replace("_", "."))


def closest(name: str) -> str:
    """The known property that a misspelt name may mean; empty if none comes near."""
    if shorter := [known_name for known_name in known() if name.startswith(known_name + ".")]:
        return max(shorter, key=len)
    return next(iter(get_close_matches(name, known(), 1)), "")


def refusal(name: str, value: str) -> str:
    """Why librdkafka refuses the value of a known property; empty if it takes it. Never quotes a secret."""
    library = _library()
    if library is None:
        return ""
    error = ctypes.create_string_buffer(512)
    conf = library.rd_kafka_conf_new()
    try:
        code = library.rd_kafka_conf_set(conf, name.encode(), value.encode(), error, len(error))
    finally:
        library.rd_kafka_conf_destroy(conf)
    if code == CONF_OK:
        return ""
    text = " ".join(error.value.decode("utf-8", "replace").split())
    return text.replace(value, SECRET) if value and is_secret(name) else text


def is_secret(name: str) -> bool:
    """Whether the property's value is nobody's business."""
    return any(word in name for word in SECRET_WORDS)


@cache
def _library() -> ctypes.CDLL | None:
    from confluent_kafka import cimpl  # 50 ms

    try:
        library = ctypes.CDLL(cimpl.__file__)  # a name is also looked up in the libraries it links
        library.rd_kafka_conf_properties_show.argtypes = [c_void_p]
        library.rd_kafka_conf_new.restype = c_void_p
        library.rd_kafka_conf_destroy.argtypes = [c_void_p]
        library.rd_kafka_conf_set.argtypes = [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]
        library.rd_kafka_conf_set.restype = c_int
    except (AttributeError, OSError):
        return None
    return library


def _described(library: ctypes.CDLL) -> str:
    """The table of librdkafka's CONFIGURATION.md, which the library only writes to a C stream."""
    libc = ctypes.CDLL(None)
    libc.open_memstream.restype = c_void_p
    libc.open_memstream.argtypes = [POINTER(c_void_p), POINTER(c_size_t)]
    libc.fclose.argtypes = libc.free.argtypes = [c_void_p]
    text, size = c_void_p(), c_size_t()
    stream = libc.open_memstream(byref(text), byref(size))
    try:
        library.rd_kafka_conf_properties_show(stream)
    finally:
        libc.fclose(stream)
    try:
        return ctypes.string_at(text, size.value).decode()
    finally:
        libc.free(text)
