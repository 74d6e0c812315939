"""Whose code runs in the processes that a verb starts."""

import subprocess

from tests.support.planted import PROGRAM, Planted, bare_environment
from tests.support.publish import shop

TIMEOUT_S = 120


def test_no_code_of_the_current_folder_runs_in_workers(new_group, publisher, tmp_path):
    """`run --workers 2` starts processes of its own, and Python begins each of them with the current folder
    unless it is told not to: nothing that lies there is run, whatever its name."""
    group = new_group()
    sender = publisher(group)
    sender.send(*shop(), partition=0)
    sender.flush()
    planted = Planted(tmp_path)
    properties = [part for name, value in group.kafka.items() for part in ("-X", f"{name}={value}")]
    done = subprocess.run(
        [PROGRAM, "run", "--workers", "2", "--until-caught-up", "--topic", group.topic, *properties],
        cwd=tmp_path,
        env=bare_environment(STOCKLEDGER_DSN=group.dsn),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert planted.ran() == []
    assert sum(group.next_offsets().values()) == len(shop())
