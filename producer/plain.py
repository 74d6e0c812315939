"""The quick way to accept a line: plain lines only; the rest is left to `jsonl.parse`, the authority.

Plain is printable ASCII without escapes, no space inside a value, no key twice and no null; types and bounds
are those of the structs. All that the models demand beyond these is true of such a line (visible
characters, NFC, no NUL, not 0): a test holds the list of those demands.
"""

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, NamedTuple, Self, Union

import msgspec
from msgspec import Meta, MsgspecError, Struct, defstruct
from msgspec.json import Decoder, Encoder

from ledger.domain import structs
from ledger.domain.commands import KEY_PART_MAX, AnyCommand, record_key
from producer.lines import LINE_MAX


class Ready(Struct, frozen=True, gc=False):
    """A command as it goes into the topic. `id` is None where the line leaves it to the sidecar.

    `subject` is what it changes, the goods or the user; `user_id` who acts or is meant, empty if nobody is.
    """

    source: str
    id: str | None
    name: str
    subject: str
    user_id: str
    value: bytes

    @classmethod
    def of(cls, source: str, id: str | None, command: AnyCommand) -> Self:
        """The command that was sent, or that a line says."""
        user_id = getattr(command, "user_id", "")
        return cls(source, id, command.NAME, record_key(command), user_id, structs.canonical(command))


class Plain(NamedTuple):
    """Plain lines in a row: their fields, and their canonical form."""

    fields: list[Any]
    text: bytes

    @property
    def ids(self) -> list[Any]:
        """Each line's id; None where it leaves it to the sidecar."""
        return [each.id for each in self.fields]

    @property
    def have_ids(self) -> bool:
        """Whether no line leaves its id to the sidecar."""
        return None not in self.ids

    def commands(self, default_source: str) -> Iterator[tuple[Ready, Any]]:
        """What the authority makes of each line, and its id."""
        return zip(self.ready(default_source), self.ids, strict=True)

    def ready(self, default_source: str) -> Iterator[Ready]:
        """What the authority makes of each line."""
        forms = _forms().by_type
        for each, text in zip(self.fields, self.text.split(b"\n"), strict=False):
            name, has_goods, has_user, head = forms[type(each)]
            id, source = each.id, each.source
            if id is not None:
                head += _ID_SIZE + len(id)
            if source is not None:
                head += _SOURCE_SIZE + len(source)
            user_id = each.user_id if has_user else ""
            subject = each.goods_id if has_goods else user_id
            yield Ready(source or default_source, id, name, subject, user_id, b"{" + text[head:])


def quick(text: bytes, default_source: str) -> Ready | None:
    """What the authority makes of a plain line; None: ask the authority."""
    if len(text) > LINE_MAX:
        return None
    plain = quick_lines(text.strip(b" \t\r") + b"\n", default_source)
    return next(plain.ready(default_source)) if plain else None


def quick_lines(text: bytes, default_source: str) -> Plain | None:
    """The lines of a text, each with its end, if all are plain; None: ask about each of them."""
    # This spares the rules on characters. (Integers: to look for `b"..."` takes ten times as long.)
    if not text.isascii() or _BACKSLASH in text or _DELETE in text or len(text) > LINE_MAX:
        return None
    try:
        fields = _forms().decode(text)
    except MsgspecError:
        return None
    plain = _encode(fields)
    if _SPACE in plain or not (plain == text or _is_alike(plain, text, len(fields))):
        return None
    have_source = default_source or None not in [each.source for each in fields]
    return Plain(fields, plain) if have_source else None


def _is_alike(plain: bytes, text: bytes, objects: int) -> bool:
    """Whether the text says the same as its plain form, each line for itself."""
    # Each line ends an object (a line's end inside a value would be no JSON), and there are as many of both:
    # so none goes over two lines, none shares a line, no line is blank. As many colons as in the plain form:
    # no key is repeated, none is null.
    one_each = text.count(b"}\n") + text.count(b"}\r\n") == text.count(b"\n") == objects
    return one_each and plain.count(b":") == text.count(b":")


_SPACE, _BACKSLASH, _DELETE = ord(" "), ord("\\"), 0x7F
_ID_SIZE, _SOURCE_SIZE = len('"id":"",'), len('"source":"",')
_encode = Encoder().encode_lines


class _Fields(
    Struct, kw_only=True, tag_field="type", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """What every line has; after it a command's fields, in the order of its canonical form."""

    id: Annotated[str, Meta(min_length=1, max_length=KEY_PART_MAX)] | None = None
    source: Annotated[str, Meta(min_length=1, max_length=KEY_PART_MAX)] | None = None


class _Form(NamedTuple):
    name: str
    has_goods: bool
    has_user: bool
    head_size: int


class _Forms(NamedTuple):
    decode: Any
    by_type: dict[type, _Form]


@cache
def _forms() -> _Forms:
    types = [_fields_of(command) for command in structs.STRUCTS.values()]
    forms = (
        _Form(
            name,
            "goods_id" in kind.__struct_fields__,
            "user_id" in kind.__struct_fields__,
            len(f'{{"type":"{name}",'),
        )
        for name, kind in structs.STRUCTS.items()
    )
    any_of: Any = Union[tuple(types)]  # noqa: UP007 (a union of a list)
    return _Forms(Decoder(any_of).decode_lines, dict(zip(types, forms, strict=True)))


def _fields_of(command: type[structs.AnyStruct]) -> type[Struct]:
    fields = [
        (field.name, field.type) if field.required else (field.name, field.type, field.default)
        for field in msgspec.structs.fields(command)
    ]
    return defstruct(command.NAME, fields, bases=(_Fields,), tag=command.NAME, kw_only=True)
