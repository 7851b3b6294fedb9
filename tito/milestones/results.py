"""What a milestone's program leaves behind: ``results/NN_year_name/result.json``, beside its figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

FORMAT = 1
FILE = "result.json"


@dataclass(frozen=True)
class Result:
    """The last run of a milestone: all that it wrote down, whether the goals were met, and when they first were."""

    fields: dict[str, Any]
    met: bool
    reached_at: str | None


def read_result(folder: Path) -> Result | None:
    """The result in ``folder``; None if there is none that can be read, since a new run gives a new one."""
    try:
        fields: dict[str, Any] = json.loads((folder / FILE).read_bytes())
        if fields["format"] != FORMAT:
            return None
        reached = fields["reached_at"]
        return Result(fields, bool(fields["met"]), reached and datetime.fromisoformat(reached).isoformat())
    except (OSError, ValueError, TypeError, KeyError):
        return None
