"""Schemathesis against a gateway that draws: requests made up from the published schema, right and wrong ones.

    python -m tests.fuzz [--cases 2000] [--seed 1]

It ends with 1 where an answer is a 5xx, or is none that the schema announces.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.embedded import EmbeddedRedis
from shared.keyring import Keyring, write_keyring
from tests.shops import shop_of

# What the schema can't say (a size of the catalogue, a key that was used before) is refused, and rightly so: of the
# checks only `positive_data_acceptance` is left out.
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
ALL_PHASES: Final = "examples,coverage,fuzzing,stateful"
EXAMPLES: Final = 60  # of a round: about 1,200 requests, half of which are the same in each round
SLOWEST_S: Final = 30.0


@dataclass(frozen=True)
class Findings:
    """What came of it: whether all checks passed, what was said, and how many answers there were by status."""

    passed: bool
    said: str
    statuses: Counter[int]


def fuzz(server: EmbeddedRedis, folder: Path, examples: int, seed: int, phases: str = ALL_PHASES) -> Findings:
    """Ask up to so many made-up requests in each phase of each operation; what they were stays in the folder."""
    ring, secret = Keyring().added("fuzz", admin=True, priority=0)
    write_keyring(folder / "keys.toml", ring)
    report = folder / "report.ndjson"
    with shop_of(server, http_keys=folder / "keys.toml") as shop:
        command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{shop.gate.url}/openapi.json"]
        options = ["--phases", phases, "--checks", ",".join(CHECKS), "--no-color"]
        options += ["--header", f"Authorization: Bearer {secret}"]
        options += ["--max-examples", str(examples), "--seed", str(seed), "--request-timeout", str(SLOWEST_S)]
        options += ["--generation-database", "none", "--continue-on-failure", "--report-ndjson-path", str(report)]
        options += ["--warnings", "off", "--suppress-health-check", "all"]
        ended = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)
    return Findings(ended.returncode == 0, ended.stdout + ended.stderr, statuses_of(report))


def statuses_of(report: Path) -> Counter[int]:
    """How many answers of each status a report holds."""
    found: Counter[int] = Counter()

    def gather(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("status_code"), int) and "headers" in value:
                found[value["status_code"]] += 1
            for each in value.values():
                gather(each)
        elif isinstance(value, list):
            for each in value:
                gather(each)

    for line in report.read_text().splitlines():
        gather(json.loads(line))
    return found


def main() -> int:
    """Rounds with one seed after the other, until enough was asked."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cases", type=int, default=2000, help="requests at least (default: 2000)")
    options.add_argument("--seed", type=int, default=1, help="of the first round")
    given = options.parse_args()
    asked, seed = Counter[int](), given.seed
    with tempfile.TemporaryDirectory(prefix="cascade-fuzz-") as name, EmbeddedRedis(Path(name) / "redis") as server:
        while asked.total() < given.cases:
            found = fuzz(server, Path(name), EXAMPLES, seed)
            asked += found.statuses
            sys.stdout.write(f"seed {seed}: {found.statuses.total()} requests\n")
            if not found.passed:
                sys.stdout.write(found.said)
                return 1
            seed += 1
    sys.stdout.write(f"{asked.total()} requests, no check failed; answers by status: {dict(sorted(asked.items()))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
