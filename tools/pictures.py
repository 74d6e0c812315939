"""Pictures of the dashboard, one a screen, width and scheme: `python -m tools.pictures` makes build/pictures.

They are what the test in a browser sees, so it is that test which is run. It needs services and chromium.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "build/pictures"
TEST = "tests/kafka/test_dashboard_browser.py::test_every_screen_at_every_width"


def main() -> int:
    """Make them anew; the test's exit code."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("*.png"):
        old.unlink()
    environment = os.environ | {"STOCKLEDGER_TEST_PICTURES": str(PICTURES)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", TEST], cwd=ROOT, env=environment, check=False
    )
    print(f"{len([*PICTURES.glob('*.png')])} pictures in {PICTURES.relative_to(ROOT)}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
