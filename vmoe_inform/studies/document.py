"""A study as it is written to study.json: what was measured of every run, from which all of its tables are made."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from vmoe_inform import checks, documents, storage
from vmoe_inform.studies import results, summary
from vmoe_inform.studies.results import Flops, RunResult
from vmoe_inform.studies.summary import Measures

VERSION = 2  # of the schema

Value = Annotated[float, checks.Bound(at_least=-1e100, at_most=1e100)]


@dataclasses.dataclass(frozen=True)
class StudiedRouter:
    """What was measured of a router.

    Attributes:
      parameters: of its model.
      flops: as of :class:`vmoe_inform.studies.results.RunResult`.
      values: by name of the measure (see :func:`vmoe_inform.studies.summary.measures_of`), one for each seed. A measure
        that some seed lacks is left out.
    """

    parameters: checks.PositiveInt
    flops: Mapping[str, Flops]
    values: Mapping[str, tuple[Value, ...]]

    @classmethod
    def of(cls, runs: Sequence[RunResult]) -> "StudiedRouter":
        """From the results of its runs, in the order of the seeds."""
        measures = [summary.measures_of(run) for run in runs]
        shared = [name for name in measures[0] if all(name in own for own in measures)]
        # The compiled step is the same whatever the seed.
        values = {name: tuple(own[name] for own in measures) for name in shared}
        return cls(runs[0].parameters, runs[0].flops, values)


@dataclasses.dataclass(frozen=True)
class Study:
    """A study with all of its measures; the file also has what is worked out from them, and the runs' results.

    Attributes:
      config, overrides: of every run, for the reader.
      against: the router that the others are compared with.
      seeds: in the order of the values.
      steps: of the two measurements, ``before`` and ``last``.
      routers: by name.
      looks_ahead: routers that may look at later words.
      version: of the schema.
    """

    config: str
    overrides: Mapping[str, Any]
    against: str
    seeds: tuple[int, ...]
    steps: Mapping[str, int]
    routers: Mapping[str, StudiedRouter]
    looks_ahead: tuple[str, ...] = ()
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.against not in self.routers:
            raise checks.error("against", f"one of the routers {', '.join(self.routers)}", self.against)
        for router, of_router in self.routers.items():
            for name, values in of_router.values.items():
                if len(values) != len(self.seeds):
                    raise checks.error(f"values of {router}, {name}", f"{len(self.seeds)} numbers", len(values))

    def among(self, routers: Sequence[str] | None = None, *, against: str | None = None) -> "Study":
        """The same study of some routers; Holm's correction is then over these alone.

        Args:
          routers: in their new order; None for all.
          against: the router that the others are compared with. None for that of the study where it is among the
            routers, else the first.

        Raises:
          ValueError: a router that the study does not have, or one given twice.
        """
        chosen = tuple(self.routers) if routers is None else tuple(routers)
        for router in chosen:
            if router not in self.routers or chosen.count(router) > 1:
                raise checks.error("--routers", f"each once, of {', '.join(self.routers)}", ", ".join(chosen))
        if against is None:
            against = self.against if self.against in chosen else chosen[0]
        if against not in chosen:
            raise checks.error("--against", f"one of the routers {', '.join(chosen)}", against)
        return dataclasses.replace(
            self,
            against=against,
            routers={router: self.routers[router] for router in chosen},
            looks_ahead=tuple(router for router in self.looks_ahead if router in chosen),
        )

    @property
    def measures(self) -> dict[str, list[Measures]]:
        """By router, of each seed."""
        return {
            router: [{name: values[place] for name, values in of.values.items()} for place in range(len(self.seeds))]
            for router, of in self.routers.items()
        }

    @property
    def overhead(self) -> dict[str, dict[str, float]]:
        """Of each router, its flops as a ratio to those of the one compared with, minus 1."""
        return summary.overhead({router: of.flops for router, of in self.routers.items()}, self.against)


def read(path: storage.Path) -> Study:
    """The study in a file, also one that an older version wrote, or one of which only the values were kept.

    Raises:
      FileNotFoundError: there is no such file.
      DamagedFileError: it is no study.
    """
    return documents.read(path, _VERSIONS)


def _read_version_1(value: Any) -> Study:
    """Its measures were not kept seed by seed, but its runs were."""
    if not isinstance(value, dict) or not isinstance(value.get("runs"), list):
        raise ValueError("no 'runs'")
    runs: dict[str, list[RunResult]] = {}
    for found in map(results.of_json, value["runs"]):
        runs.setdefault(found.router, []).append(found)
    routers = {router: documents.to_json(StudiedRouter.of(of_router)) for router, of_router in runs.items()}
    return documents.from_json({**value, "routers": routers, documents.VERSION_KEY: VERSION}, Study)


_VERSIONS: Mapping[int, Callable[[Any], Study]] = {
    1: _read_version_1,
    VERSION: functools.partial(documents.from_json, kind=Study),
}
