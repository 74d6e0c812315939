"""How every verb runs: the options that all of them take, one way to answer, one way to fail.

    @verb()
    def stock(call: Call, goods_id: Annotated[str, typer.Argument()]) -> Answer: ...

A verb's own parameters are typer's. It gets everything common as one `Call`, and says what it found as one
`Answer`; a LedgerError that it raises becomes a line, an object and an exit code here and nowhere else.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import Defect, LedgerError
from stockledger import exits
from stockledger.exits import Interrupted, UsageError, as_json, exit_code
from stockledger.output import Output

if TYPE_CHECKING:
    from stockledger.settings import Settings

COMMON = "Common"
BUG_TEXT_MAX = 200
REPORT = "run it again with --debug and report what that prints"


def flag(name: str, help: str, panel: str | None = None) -> Any:
    """A switch, without the `<bool>` that typer shows behind it."""
    return typer.Option(name, help=help, metavar="", rich_help_panel=panel)


Json = Annotated[bool, flag("--json", "Print one JSON object.", COMMON)]
Debug = Annotated[bool, flag("--debug", "Show tracebacks.", COMMON)]
Dsn = Annotated[
    str | None,
    typer.Option("--dsn", help="Postgres; else STOCKLEDGER_DSN, else libpq's PG*.", rich_help_panel=COMMON),
]
Properties = Annotated[
    list[str] | None,
    typer.Option(
        "-X", metavar="NAME=VALUE", help="A librdkafka property; repeatable.", rich_help_panel=COMMON
    ),
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

    def settings(self, **options: str | None) -> "Settings":
        """The settings, with the verb's own options (None: not given) before the environment."""
        from stockledger.settings import load  # 200 ms

        return load({"dsn": self.dsn, **options}, self.properties)


def verb(*, connects: bool = True) -> Callable[[Callable[..., Answer]], Callable[..., None]]:
    """Make a function a verb. One that `connects` takes `--dsn` and `-X`; all take `--json` and `--debug`."""

    def decorate(function: Callable[..., Answer]) -> Callable[..., None]:
        def run(
            *,
            json: bool,
            debug: bool,
            dsn: str | None = None,
            properties: list[str] | None = None,
            **own: Any,
        ) -> None:
            call = Call(Output(json=json), dsn, tuple(properties or ()))
            raise typer.Exit(conclude(call.out, debug, lambda: function(call, **own)))

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = _signature(function, connects)  # type: ignore[attr-defined]
        run.__annotations__ = {}
        return run

    return decorate


def _signature(function: Callable[..., Answer], connects: bool) -> inspect.Signature:
    common: dict[str, tuple[Any, Any]] = {"json": (Json, False), "debug": (Debug, False)}
    if connects:
        common = {"dsn": (Dsn, None), "properties": (Properties, None)} | common
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
        answer = action()
    except KeyboardInterrupt:
        return fail(out, Interrupted("interrupted"))
    except BrokenPipeError:
        raise  # whoever reads us has enough: `main` ends in silence
    except UnicodeEncodeError:
        return fail(out, UsageError("the command line isn't UTF-8"))
    except LedgerError as error:
        if debug:
            out.traceback()
        return fail(out, error)
    except Exception as error:  # noqa: BLE001 (the last line of defence: no traceback unless asked)
        if debug:
            out.traceback()
        first_line = next(iter(str(error).splitlines()), "")
        return fail(out, Defect(f"{type(error).__name__}: {first_line[:BUG_TEXT_MAX]}", remedy=REPORT))
    data = {"ok": answer.error is None, **answer.data}
    if answer.error:
        return fail(out, answer.error, data)
    out.result(data | ({"next": answer.next} if answer.next else {}))
    if answer.next and not out.json:
        out.note(f"next: {answer.next}", style="dim")
    return exits.OK


def fail(out: Output, error: LedgerError, data: Mapping[str, Any] | None = None) -> int:
    """Print the error, with what was found all the same, and return its exit code."""
    out.result({**(data or {}), "ok": False, "error": as_json(error)})
    out.error(error)
    return exit_code(error)
