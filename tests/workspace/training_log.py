"""Reading of `logs.json.txt`."""

import json
from pathlib import Path
from typing import Any

TIMING = {"steps_per_second", "samples_per_second", "peak_memory_mb"}


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of a run, without how fast it was: equal runs have equal ones."""
    records = [json.loads(line) for line in (folder / "logs.json.txt").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in TIMING} for record in records]
