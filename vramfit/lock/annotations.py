"""Growths in the formats in which services show them beside the code: SARIF 2.1.0, and GitHub's workflow commands.

Both point at the line of the lock file where the job's entry begins.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from vramfit._version import __version__
from vramfit.lock.growth import Growth

_RULE = "peak-memory"
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
# What a workflow command writes otherwise in its message and in its properties.
_ESCAPES = {"%": "%25", "\r": "%0D", "\n": "%0A"}


def sarif(growths: Sequence[Growth], lock: Path) -> str:
    """One SARIF log of a run of the check."""
    results = [
        {
            "ruleId": _RULE,
            "level": "error",
            "message": {"text": str(growth)},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": lock.as_posix()},
                        "region": {"startLine": line_of(growth.job, lock)},
                    }
                }
            ],
        }
        for growth in growths
    ]
    rule = {"id": _RULE, "shortDescription": {"text": "Training takes more memory than the lock file says."}}
    driver = {"name": "vramfit", "version": __version__, "rules": [rule]}
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(document, indent=2) + "\n"


def workflow_command(growth: Growth, lock: Path) -> str:
    """The line on stdout that GitHub shows as an error beside the lock file."""
    message = "".join(_ESCAPES.get(letter, letter) for letter in str(growth))
    return f"::error file={lock.as_posix()},line={line_of(growth.job, lock)},title=Peak memory::{message}"


def line_of(job: str, lock: Path) -> int:
    """The number of the line where a job's entry begins, from 1."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.strip() == f"{json.dumps(job)}: {{"), 1)
