"""Checks the data of a config before a long run: all splits and, for ImageNet, every published suite.

    python -m vmoe_inform.data.check --config=configs/imagenet.py [--directory=DIR]

For each set it prints whether and where it was found, and compares the number of images with the published one. It
checks labels, decodes ten images and draws them in DIR/contact_sheet.png. Labels of TFDS's data sets are checked for
the decoded images only, those of folders and tars for all. Of text it counts lines, words, tokens and unknown words.
The exit code is 0 if the splits and all suites found are sound, otherwise 2.
"""

import pathlib
from collections.abc import Sequence
from typing import Annotated

import rich.console
import rich.table
from absl import flags

from vmoe_inform import checks, command_line, storage, text
from vmoe_inform import config as config_lib
from vmoe_inform.data import inspection
from vmoe_inform.data.images import contact_sheet
from vmoe_inform.data.text import inspection as text_inspection
from vmoe_inform.evaluation.suites import registry

_CONFIG = command_line.define_config()
_DIRECTORY = command_line.define_path("directory", "Folder for contact_sheet.png of images; it is made.", default=".")
_IMAGES = command_line.define(
    "images",
    Annotated[int, checks.Bound(at_least=1, at_most=100_000)],
    10,
    "Images of each set to decode, evenly spread (of ImageNet-C of each corruption); ten of them are drawn.",
)
_EXPECTED_COUNTS = flags.DEFINE_enum(
    "expected_counts", "published", ["published", "any"], "Numbers of images or lines: the published ones, or any."
)

CONTACT_SHEET = "contact_sheet.png"
Findings = Sequence[inspection.Finding] | Sequence[text_inspection.Finding]


def main(_: list[str]) -> int:
    """Returns the exit code."""
    config = config_lib.parse(_CONFIG.required)
    directory = pathlib.Path(_DIRECTORY.value)
    whole = _EXPECTED_COUNTS.value == "published"
    console = rich.console.Console(highlight=False, soft_wrap=True)
    if isinstance(config, config_lib.LanguageConfig):
        of_text = text_inspection.examine_all(config, whole=whole)
        return _report(of_text, text_inspection.table(of_text), [], console)
    storage.check_writable(directory, "--directory")  # before hours of reading
    suites = registry.examinations()
    findings = inspection.examine_all(config_lib.as_images(config), suites, whole=whole, num_images=_IMAGES.value)
    missing = [finding.missing for finding in findings if finding.missing]
    code = _report(findings, inspection.table(findings), missing, console)
    rows = [
        contact_sheet.Row(one.name, (one.origin, f"{one.count:,} images"), one.images, one.captions)
        for one in findings
        if one.images
    ]
    if rows:
        path = directory / CONTACT_SHEET
        contact_sheet.draw(rows).save(path)
        console.print(text.printable(f"contact sheet: {path}"), markup=False)
    return code


def _report(findings: Findings, table: rich.table.Table, missing: Sequence[str], console: rich.console.Console) -> int:
    """Prints what was found, and returns the exit code."""
    console.print(table)
    problems = [f"{finding.name}: {problem}" for finding in findings for problem in finding.problems]
    for line in (*problems, *missing):
        console.print(text.printable(line), markup=False)
    return command_line.BAD_INPUT if problems else 0


if __name__ == "__main__":
    command_line.run(main)
