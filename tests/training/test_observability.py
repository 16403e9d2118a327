"""docs/observability.md names every metric that a run logs, with its unit."""

import fnmatch
import re

from tests import processes

DOCUMENT = processes.ROOT / "docs" / "observability.md"


def documented_metrics() -> dict[str, str]:
    """Patterns of names, such as ``losses/*``, and their units."""
    table = DOCUMENT.read_text().partition("| name | unit |")[2].partition("\n\n")[0]
    metrics: dict[str, str] = {}
    for row in table.splitlines()[2:]:
        names, unit = (cell.strip() for cell in row.strip("|").split("|")[:2])
        listed = re.findall(r"`([^`]+)`", names)
        for name in listed:
            folder = "" if "/" in name else f"{listed[0].rpartition('/')[0]}/"  # a/b, c in a row are a/b and a/c
            metrics[re.sub(r"[A-Z]{2,}", "*", f"{folder}{name}".removeprefix("/"))] = unit
    return metrics


def undocumented(names) -> list[str]:
    patterns = documented_metrics()
    return sorted(name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def test_names_and_units_are_read():
    metrics = documented_metrics()
    assert metrics["step_seconds/p90"] == metrics["step_seconds/max"] == "s"
    assert metrics["routing/*/smallest_load"] == "1 = balance"
    assert undocumented(["loss", "routing/block_1/entropy", "evaluation/c/mean_top1", "made_up"]) == ["made_up"]
