"""The OpenAPI document against the gateway itself: whatever it allows is asked, and what it forbids, too.

`STOCKLEDGER_TEST_CASES=2000` asks so often for each endpoint, `STOCKLEDGER_TEST_PHASES=coverage,stateful` in
these phases of schemathesis, for as long as it takes; `pytest -rP` shows how many cases there were.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.doorstep import gateway
from tests.support.workers import PATIENCE_S

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
CASES_MAX = os.environ.get("STOCKLEDGER_TEST_CASES", "15")
"""For each endpoint."""
PHASES = os.environ.get("STOCKLEDGER_TEST_PHASES", "fuzzing")
"""`coverage` has a thousand more, which take a minute."""
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,allow_header_conformance"
)
TIMEOUT_S = 300 if CASES_MAX == "15" else None


@pytest.mark.slow
def test_no_answer_is_outside_of_the_document(open_shop, tmp_path, seed):
    """No fault, no status, header, type or body that isn't described, whatever is sent."""
    if not SCHEMATHESIS.exists():
        pytest.skip("schemathesis isn't installed: make test")
    with gateway(open_shop, waiting_max=10_000) as door:
        words = ["run", f"{door.address}/openapi.json", "--phases", PHASES]
        words += ["--checks", CHECKS, "--max-examples", CASES_MAX, "--seed", str(seed)]
        words += [
            "-H",
            "Prefer: wait=0",
            "--continue-on-failure",
            "--no-color",
            "--generation-database",
            "none",
            "--request-timeout",
            str(PATIENCE_S),
            "--suppress-health-check",
            "all",
        ]
        done = subprocess.run(
            [SCHEMATHESIS, *words],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    print(done.stdout[-2000:])
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
