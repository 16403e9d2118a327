"""Checks the data of a config before a long run: both splits and, for ImageNet, every published suite.

    python -m vmoe_inform.data.check --config=configs/imagenet.py [--directory=DIR]

For each set it prints whether and where it was found, and compares the number of images with the published one. It
checks labels, decodes ten images and draws them in DIR/contact_sheet.png. Labels of TFDS's data sets are checked for
the decoded images only, those of folders and tars for all. The exit code is 0 if both splits and all suites found are
sound, otherwise 2.
"""

import pathlib
from typing import Annotated

import rich.console
from absl import flags

from vmoe_inform import checks, command_line, storage, text
from vmoe_inform import config as config_lib
from vmoe_inform.data import inspection
from vmoe_inform.data.images import contact_sheet
from vmoe_inform.evaluation.suites import registry

_CONFIG = command_line.define_config()
_DIRECTORY = command_line.define_path("directory", "Folder for contact_sheet.png; it is made.", default=".")
_IMAGES = command_line.define(
    "images",
    Annotated[int, checks.Bound(at_least=1, at_most=100_000)],
    10,
    "Images of each set to decode, evenly spread (of ImageNet-C of each corruption); ten of them are drawn.",
)
_EXPECTED_COUNTS = flags.DEFINE_enum(
    "expected_counts", "published", ["published", "any"], "Numbers of images: the published ones, or any (a subset)."
)

CONTACT_SHEET = "contact_sheet.png"


def main(_: list[str]) -> int:
    """Returns the exit code."""
    config = config_lib.as_images(config_lib.parse(_CONFIG.required))
    directory = pathlib.Path(_DIRECTORY.value)
    storage.check_writable(directory, "--directory")  # before hours of reading
    whole = _EXPECTED_COUNTS.value == "published"
    findings = inspection.examine_all(config, registry.examinations(), whole=whole, num_images=_IMAGES.value)
    console = rich.console.Console(highlight=False, soft_wrap=True)
    console.print(inspection.table(findings))
    for finding in findings:
        for problem in finding.problems:
            console.print(text.printable(f"{finding.name}: {problem}"), markup=False)
        if finding.missing:
            console.print(text.printable(finding.missing), markup=False)
    rows = [
        contact_sheet.Row(one.name, (one.origin, f"{one.count:,} images"), one.images, one.captions)
        for one in findings
        if one.images
    ]
    if rows:
        path = directory / CONTACT_SHEET
        contact_sheet.draw(rows).save(path)
        console.print(text.printable(f"contact sheet: {path}"), markup=False)
    return command_line.BAD_INPUT if any(finding.problems for finding in findings) else 0


if __name__ == "__main__":
    command_line.run(main)
