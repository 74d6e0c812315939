"""How every verb runs: the options that all of them take, one way to answer, one way to fail.

    @verb()
    def stock(call: Call, goods_id: Annotated[str, typer.Argument()]) -> Answer: ...

A verb's own parameters are typer's. It gets everything common as one `Call`, and says what it found as one
`Answer`; a LedgerError that it raises becomes a line, an object and an exit code here and nowhere else.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger import signals
from ledger.errors import AGAIN, Defect, LedgerError
from ledger.shell import command
from stockledger.verb import exits
from stockledger.verb.exits import Interrupted, OutputFailed, UsageError, as_json, exit_code
from stockledger.verb.output import Output, as_typed

if TYPE_CHECKING:
    from stockledger.settings import Settings

COMMON = "Common"
BUG_TEXT_MAX = 200


def flag(name: str, help: str, panel: str | None = None) -> Any:
    """A switch, without the `<bool>` that typer shows after it."""
    return typer.Option(name, help=help, metavar="", rich_help_panel=panel)


JsonOption = Annotated[bool, flag("--json", "Print one JSON object.", COMMON)]
DebugOption = Annotated[bool, flag("--debug", "Show tracebacks.", COMMON)]
DsnOption = Annotated[
    str | None,
    typer.Option("--dsn", help="Postgres; else STOCKLEDGER_DSN, else libpq's PG*.", rich_help_panel=COMMON),
]
PropertiesOption = Annotated[
    list[str] | None,
    typer.Option(
        "-X",
        metavar="NAME=VALUE",
        help="A librdkafka property; repeatable. Secrets: by environment.",
        rich_help_panel=COMMON,
    ),
]


TopicsOption = Annotated[
    list[str] | None,
    typer.Option("--topic", metavar="NAME", help="A command topic; repeatable. Else STOCKLEDGER_TOPIC."),
]
TopicOption = Annotated[
    list[str] | None,  # or the first of two would be dropped in silence
    typer.Option("--topic", metavar="NAME", help="The command topic; else STOCKLEDGER_TOPIC."),
]
GroupOption = Annotated[
    str | None,
    typer.Option("--group", metavar="NAME", help="The consumer group; else STOCKLEDGER_GROUP."),
]


@dataclass(frozen=True)
class Answer:
    """What a verb found: `data` is the object of `--json`, `next` the command that usually follows.

    With an `error` the verb has a result and yet fails; both are shown.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    next: str = ""
    error: LedgerError | None = None


@dataclass(frozen=True)
class Call:
    """What every verb is given."""

    out: Output
    dsn: str | None = None
    properties: tuple[str, ...] = ()
    names: Mapping[str, str | None] = field(default_factory=dict)
    """What `--topic` and `--group` said; several topics with a comma between them, as in the environment."""

    def settings(self, **options: object) -> "Settings":
        """The settings, with the verb's own options (None: not given) before the environment."""
        from stockledger.settings import load  # 200 ms

        return load({"dsn": self.dsn, **self.names, **options}, self.properties)

    def onward(self, verb: str, *given: object) -> str:
        """The command line that usually follows, about the same topics and group."""
        named = [
            f"--{name} {quote(part)}"
            for name, value in self.names.items()
            if value is not None
            for part in (value.split(",") if name == "topic" else [value])
        ]
        return command(" ".join([verb, *named]), *given)


def verb(
    *, connects: bool = True, topic: bool = False, topics: bool = False, group: bool = False
) -> Callable[[Callable[..., Answer]], Callable[..., None]]:
    """Make a function a verb. One that `connects` takes `--dsn` and `-X`; all take `--json` and `--debug`.

    One that reads or writes command topics takes their names; one that is about a single `topic` asks the
    settings for the `only_topic`. One that acts for the group takes the group's.
    """
    named: dict[str, Any] = {"topic": TopicsOption} if topics else {"topic": TopicOption} if topic else {}
    named |= {"group": GroupOption} if group else {}

    def decorate(function: Callable[..., Answer]) -> Callable[..., None]:
        def run(
            *,
            json: bool,
            debug: bool,
            dsn: str | None = None,
            properties: list[str] | None = None,
            **own: Any,
        ) -> None:
            names = {name: own.pop(name) for name in named}
            if "topic" in names:
                names["topic"] = ",".join(names["topic"]) if names["topic"] else None
            call = Call(Output(json=json), dsn, tuple(properties or ()), names)
            raise typer.Exit(conclude(call.out, debug, lambda: function(call, **own)))

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = _signature(function, named, connects)  # type: ignore[attr-defined]
        run.__annotations__ = {}
        return run

    return decorate


def _signature(
    function: Callable[..., Answer], named: Mapping[str, Any], connects: bool
) -> inspect.Signature:
    common: dict[str, tuple[Any, Any]] = {"json": (JsonOption, False), "debug": (DebugOption, False)}
    if connects:
        common = {"dsn": (DsnOption, None), "properties": (PropertiesOption, None)} | common
    common = {name: (option, None) for name, option in named.items()} | common
    own = list(inspect.signature(function).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword, annotation=annotation, default=default)
        for name, (annotation, default) in common.items()
    ]
    return inspect.Signature([*(parameter.replace(kind=keyword) for parameter in own), *added])


def conclude(out: Output, debug: bool, action: Callable[[], Answer]) -> int:
    """Run the verb, print how it ended, and return its exit code."""
    try:
        code = _concluded(out, debug, action)
        out.end()
    except OutputFailed as error:
        out.error(error)
        return exit_code(error)
    return code


def _concluded(out: Output, debug: bool, action: Callable[[], Answer]) -> int:
    try:
        with signals.interrupting():
            answer = action()
    except KeyboardInterrupt as error:
        return fail(out, Interrupted(_noted("interrupted", error), remedy=AGAIN))
    except UnicodeEncodeError:
        return fail(out, UsageError("the command line isn't UTF-8", remedy="export PYTHONUTF8=1"))
    except OutputFailed:
        raise  # there is nowhere to show an object
    except LedgerError as error:
        if debug:
            out.traceback()
        return fail(out, error)
    except Exception as error:  # noqa: BLE001 (the last line of defence: no traceback unless asked)
        if debug:
            out.traceback()
        first_line = next(iter(str(error).splitlines()), "")
        return fail(out, Defect(_noted(f"{type(error).__name__}: {first_line[:BUG_TEXT_MAX]}", error)))
    data = {"ok": answer.error is None, **answer.data}
    if answer.error:
        return fail(out, answer.error, data)
    out.result(data | ({"next": answer.next} if answer.next else {}))
    if answer.next and not out.json:
        out.note(f"next: {as_typed(answer.next)}", style="dim")
    return exits.OK


def _noted(what: str, error: BaseException) -> str:
    """The text, with what was done before it where that is known."""
    return "; ".join([what, *getattr(error, "__notes__", ())])


def fail(out: Output, error: LedgerError, data: Mapping[str, Any] | None = None) -> int:
    """Print the error, with what was found all the same, and return its exit code."""
    out.error(error)
    out.result({**(data or {}), "ok": False, "error": as_json(error)})
    return exit_code(error)
