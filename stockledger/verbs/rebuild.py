"""`rebuild`: build a projection anew beside the live one, and swap it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.errors import ProjectionDiffers
from ledger.figures import count, counted
from stockledger.verb.call import Answer, Call, flag, verb
from stockledger.verb.exits import UsageError
from stockledger.verb.output import Advance

if TYPE_CHECKING:
    from ledger.projections.projection import Projection
    from ledger.rebuilding.builder import Connect
    from ledger.rebuilding.pace import RebuildProgress
    from ledger.rebuilding.rebuild import RebuildOptions, Rebuilt
    from ledger.rebuilding.swap import Comparison, Swapped


@verb()
def rebuild(
    call: Call,
    name: Annotated[str, typer.Argument(help="The projection.")],
    yes: Annotated[bool, flag("--yes", "Do it. Without it, only say what would be done.")] = False,
    max_rate: Annotated[
        int | None, typer.Option(min=1, max=2**31 - 1, metavar="N", help="At most so many events a second.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="Connections, where the fold allows it.")
    ] = 1,
    accept_differences: Annotated[
        bool, flag("--accept-differences", "Swap although rows differ: the live ones are the wrong ones.")
    ] = False,
    rollback: Annotated[bool, flag("--rollback", "Go back to the generation that was live before.")] = False,
    cancel: Annotated[bool, flag("--cancel", "End the rebuild and drop what it built.")] = False,
    drop_old: Annotated[bool, flag("--drop-old", "Drop the generation that was live before.")] = False,
) -> Answer:
    """Build a projection anew from the events, beside the live one; compare, then swap.

    Needs the database's owner. Workers and readers go on all along; interrupted, the same again resumes.
    """
    from ledger.projections.registry import find
    from ledger.rebuilding.rebuild import RebuildOptions
    from stockledger.wiring import connections

    if sum((rollback, cancel, drop_old)) > 1:
        raise UsageError("--rollback, --cancel and --drop-old are different things", remedy="choose one")
    projection = find(name)
    connect = connections(call.settings(), "rebuild")
    if rollback or cancel or drop_old:
        which = _roll_back if rollback else _cancel if cancel else _drop_old
        return which(call, connect, projection)
    if not yes:
        return _plan(call, connect, projection)
    return _rebuild(call, connect, projection, RebuildOptions(max_rate, jobs, accept_differences))


def _plan(call: Call, connect: "Connect", projection: "Projection") -> Answer:
    from ledger.rebuilding.rebuild import plan

    with connect() as conn:
        found = plan(conn, projection)
    what = f"go on building generation {found.generation}" if found.resumes else "build a new generation"
    call.out.say(f"would {what} of {found.name}: {counted(found.events, 'event')}{_estimate(found)}")
    call.out.say("the live one isn't touched until both were compared row by row")
    data = {
        "dry_run": True, "projection": found.name, "generation": found.generation, "resumes": found.resumes,
        "events": found.events, "rate": found.rate and round(found.rate),
        "seconds": found.seconds and round(found.seconds, 3),
    }  # fmt: skip
    return Answer(data, next=f"stockledger rebuild {found.name} --yes")


def _estimate(found: Any) -> str:
    if found.seconds is None:
        return ""
    return f" (about {found.seconds:.0f} s at {count(round(found.rate))}/s)"


def _rebuild(call: Call, connect: "Connect", projection: "Projection", options: "RebuildOptions") -> Answer:
    from ledger.rebuilding import rebuild

    with call.out.progress() as advance:
        try:
            done = rebuild.rebuild(connect, projection, options, _reporter(advance))
        except ProjectionDiffers as error:
            return Answer({"projection": projection.name, "swapped": False}, error=error)
    rate = done.events / done.seconds if done.seconds else 0.0
    call.out.say(f"{counted(done.events, 'event')} in {done.seconds:.1f} s ({count(round(rate))}/s)")
    _say_comparison(call, projection, done.comparison)
    _say_swap(call, done.swapped)
    return Answer(_as_json(done), next="stockledger verify")


def _reporter(advance: Advance) -> "Callable[[RebuildProgress], None]":
    def report(now: "RebuildProgress") -> None:
        left = "" if now.eta_s is None or now.phase != "build" else f" ETA {now.eta_s:.0f} s"
        advance(f"{now.phase} {count(round(now.rate))}/s{left}", now.events, now.total)

    return report


def _say_comparison(call: Call, projection: "Projection", found: "Comparison | None") -> None:
    if found is None:
        call.out.say("not compared: another version made the live one")
    elif not found.differences:
        call.out.say(f"verified: {counted(found.rows, 'row')} identical at position {found.position}")
    else:
        call.out.say(f"{projection.name} differed at position {found.position}, as accepted:")
        for difference in found.differences:
            call.out.say("    ", str(difference))


def _say_swap(call: Call, swapped: "Swapped") -> None:
    call.out.say(
        f"swapped in {swapped.lock_ms:.1f} ms: generation {swapped.live} is live, "
        f"{swapped.standby} goes on following"
    )


def _swap_json(swapped: "Swapped") -> dict[str, Any]:
    return {
        "swapped": True, "generation": swapped.live, "standby": swapped.standby,
        "position": swapped.position, "lock_ms": round(swapped.lock_ms, 3),
    }  # fmt: skip


def _as_json(done: "Rebuilt") -> dict[str, Any]:
    return {
        "projection": done.name, "events": done.events, "seconds": round(done.seconds, 3),
        "rows_compared": done.comparison and done.comparison.rows,
        "differences": [vars_of(each) for each in done.comparison.differences] if done.comparison else [],
    } | _swap_json(done.swapped)  # fmt: skip


def vars_of(difference: Any) -> dict[str, Any]:
    """A differing row as an object."""
    return dict(difference._asdict())


def _roll_back(call: Call, connect: "Connect", projection: "Projection") -> Answer:
    from ledger.rebuilding.rebuild import roll_back

    swapped = roll_back(connect, projection)
    _say_swap(call, swapped)
    return Answer({"projection": projection.name} | _swap_json(swapped), next="stockledger status")


def _cancel(call: Call, connect: "Connect", projection: "Projection") -> Answer:
    from ledger.rebuilding.retire import cancel

    with connect() as conn:
        ended = cancel(conn, projection)
    call.out.say(f"generation {ended} dropped" if ended else "there was no rebuild to cancel")
    return Answer({"projection": projection.name, "dropped": [ended] if ended else []})


def _drop_old(call: Call, connect: "Connect", projection: "Projection") -> Answer:
    from ledger.rebuilding.retire import drop_old

    with connect() as conn:
        dropped = drop_old(conn, projection)
    words = f"dropped generation {', '.join(map(str, dropped))}" if dropped else "there was no old generation"
    call.out.say(words)
    return Answer({"projection": projection.name, "dropped": dropped})
