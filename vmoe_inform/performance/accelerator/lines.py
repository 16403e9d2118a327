"""The report of the accelerator check for people."""

import itertools

from vmoe_inform.performance import tables
from vmoe_inform.performance.accelerator.results import Report

_TITLES = {
    "paths": "fast paths against their references (errors over the largest value)",
    "training": "training steps, bfloat16",
    "resume": "resuming: arrays that differ in any bit",
    "trace": "trace",
    "side_by_side": "side by side: times over those of automatic choices",
}


def of_report(report: Report) -> list[str]:
    """Device, a table for each part, what was left out, and what is wrong."""
    capability = f", compute capability {report.compute_capability}" if report.compute_capability else ""
    chip = report.chip or "not in our table of chips, so no MFU"
    shown = [
        f"{report.device_kind} ({report.platform}{capability}; {chip}), the first of {report.num_devices}",
        ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        *(f"not installed: {name}. Left out: {words}" for name, words in report.missing.items()),
    ]
    if report.small:
        shown.append("sizes for a CPU: times say nothing about an accelerator")
    for part in report.parts:
        shown += ["", f"{_TITLES[part.name]}: {part.state} after {part.seconds:.0f} s"]
        # A part's rows are of one kind
        for _, rows in itertools.groupby(part.rows, key=type):
            shown.append(tables.render(list(rows)))
        if part.note:
            shown.append(part.note)
    wrong = report.disagreements
    return [*shown, "", f"{wrong} found wrong" if wrong else "nothing found wrong"]
