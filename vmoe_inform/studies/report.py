"""Writes study.json with every figure, study.md with tables, and the pictures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vmoe_inform import checks, documents, storage
from vmoe_inform.report.pictures import encode
from vmoe_inform.studies import document, drawing, measure, summary, tables
from vmoe_inform.studies.document import StudiedRouter, Study
from vmoe_inform.studies.plan import PlannedRun
from vmoe_inform.studies.significance import POWER
from vmoe_inform.studies.summary import LEVEL

JSON_FILE = "study.json"
TABLES_FILE = "study.md"


def write_finished(
    workdir: storage.Path,
    runs: Mapping[str, Sequence[PlannedRun]],
    *,
    against: str,
    file: str,
    overrides: Mapping[str, Any],
) -> str:
    """Compares the routers all of whose runs are finished; arguments as of :func:`write`.

    Returns:
      a line that says what was compared: nothing, if runs of ``against`` are missing.
    """
    finished = {router: of_router for router, of_router in runs.items() if all(run.is_finished for run in of_router)}
    if against not in finished:
        return f"no comparison without all runs of {against}"
    write(workdir, finished, against=against, file=file, overrides=overrides)
    return f"{workdir / TABLES_FILE}: {len(finished)} of {len(runs)} routers, {len(runs[against])} seeds"


def write(
    workdir: storage.Path,
    runs: Mapping[str, Sequence[PlannedRun]],
    *,
    against: str,
    file: str,
    overrides: Mapping[str, Any],
) -> None:
    """Writes ``study.json``, ``study.md`` and ``figures/*.png``.

    Args:
      workdir: of the study.
      runs: finished ones by router, with the same seeds for all.
      against: the router that the others are compared with.
      file, overrides: of the config, for the reader.
    """
    results = {router: [measure.read(run) for run in of_router] for router, of_router in runs.items()}
    study = Study(
        config=file,
        overrides=dict(overrides),
        against=against,
        seeds=tuple(run.config.seed for run in runs[against]),
        steps=dict(zip(("before", "last"), runs[against][0].measured_steps, strict=True)),
        routers={router: StudiedRouter.of(of_router) for router, of_router in results.items()},
        looks_ahead=tuple(router for router, of_router in runs.items() if of_router[0].config.model.allow_future),
    )
    every = [documents.to_json(result, leave_out_empty=True) for of_router in results.values() for result in of_router]
    write_study(workdir, study, runs=every)


def write_study(workdir: storage.Path, study: Study, *, runs: Sequence[Any] = ()) -> None:
    """Writes the same files from what was measured.

    Args:
      workdir: folder for them.
      study: all that was measured.
      runs: results of its runs as JSON values, which ``study.json`` holds, too.
    """
    comparisons = summary.summarize(study.measures, study.against)
    overhead = study.overhead
    written = documents.to_json(study)
    for router, of_router in written["routers"].items():
        of_router["flops_overhead"] = overhead[router]
        of_router["measures"] = {name: dataclasses.asdict(found) for name, found in comparisons[router].items()}
    written |= {
        "interval": f"{100 * LEVEL:.0f} %, Student t over the seeds; differences and ratios are paired by seed",
        "corrected_p_value": "Holm, over the differences and ratios that a table of study.md shows",
        "detectable": f"true difference that {100 * POWER:.0f} % of such studies would show, at 5 %",
        "runs": list(runs),
    }
    storage.write_json(workdir / JSON_FILE, written, within=workdir)
    about = f"{study.config}, {study.steps['last']:,} steps, {len(study.seeds)} seeds"
    if study.looks_ahead:
        everyone = len(study.looks_ahead) == len(study.routers)
        about += f"; {'routers' if everyone else ', '.join(study.looks_ahead)} may look at later words"
    pictures = drawing.figures(comparisons, overhead, against=study.against, study=about)
    for name, figure in pictures.items():
        storage.write_bytes(workdir / tables.FIGURES_FOLDER / f"{name}.png", encode(figure, "png"), within=workdir)
    storage.write_text(workdir / TABLES_FILE, tables.page(study, comparisons, list(pictures)), within=workdir)


def write_again(
    file: str,
    workdir: str | None,
    routers: Sequence[str] | None = None,
    against: str | None = None,
    other_flags: Sequence[str] = (),
) -> str:
    """Writes the files of a study from its ``study.json``, also one of an older version or with nothing but the values.

    Args:
      file: of the study.
      workdir: another folder, for what is written.
      routers, against: as of :meth:`.Study.among`.
      other_flags: of the command line, which has no use for them.

    Returns:
      a line that says what was written.

    Raises:
      ValueError: other flags, no folder, or the file's own: it has more than the values. Also an unknown router.
    """
    if other_flags:
        raise checks.error(
            "--tables_of", "no other flag than --workdir, --routers and --against", " ".join(other_flags)
        )
    path = storage.path("--tables_of", file)
    if workdir is None:
        raise checks.error("--workdir", "a folder for the tables and figures", checks.NOTHING)
    folder = storage.path("--workdir", workdir)
    if storage.absolute(folder / JSON_FILE) == storage.absolute(path):
        raise checks.error("--workdir", "another folder than that of --tables_of", workdir)
    try:
        study = document.read(path).among(routers, against=against)
    except FileNotFoundError:
        raise checks.error("--tables_of", "a study.json", file) from None
    storage.check_writable(folder, "--workdir")
    write_study(folder, study)
    return f"{folder / TABLES_FILE}: {len(study.routers)} routers, {len(study.seeds)} seeds"
