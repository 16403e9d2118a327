"""Published checkpoints by name: what their files do not say, and where the files are.

The settings are those of the published configs (github.com/google-research/vmoe, vmoe/configs). Files are fetched over
HTTPS from the public bucket into a cache, or found by their name where they were downloaded.
"""

import dataclasses
import difflib
import http.client
import os
import pathlib
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from vmoe_inform import checks, storage
from vmoe_inform.interop.formats import vmoe_shards

_BUCKET = "vmoe_checkpoints"
_SERVER = "https://storage.googleapis.com"
_TIMEOUT_SECONDS = 20.0  # without an answer
_E3 = "an ensemble (E3, arXiv 2110.03360), whose router this library does not have"


@dataclasses.dataclass(frozen=True)
class Reference:
    """A published checkpoint.

    Attributes:
      title: model and data.
      settings: fields of ``config.model`` that its files do not say.
      refused: why it cannot be imported; empty if it can be.
    """

    title: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    refused: str = ""


def _vmoe(capacity_factor_evaluation: float) -> dict[str, Any]:
    return {
        "moe.num_selected_experts": 2,
        "moe.group_size_sequences": 8,
        "moe.capacity_factor_evaluation": capacity_factor_evaluation,
    }


_S32 = "V-MoE S/32, 8 experts in the last two odd blocks"
_B16 = "V-MoE B/16, 8 experts in every odd block"
REFERENCES: Mapping[str, Reference] = {
    "vmoe_s32_last2_ilsvrc2012_randaug_light1": Reference(f"{_S32}, ImageNet, 300 epochs", _vmoe(4.0)),
    "vmoe_s32_last2_ilsvrc2012_randaug_light1_ft_ilsvrc2012": Reference(
        f"{_S32}, ImageNet, 300 epochs, fine-tuned at 384 px", _vmoe(1.5)
    ),
    "vmoe_s32_last2_ilsvrc2012_randaug_medium": Reference(f"{_S32}, ImageNet, 1,000 epochs", _vmoe(4.0)),
    "vmoe_b16_imagenet21k_randaug_strong": Reference(f"{_B16}, ImageNet-21k", _vmoe(1.05)),
    "vmoe_b16_imagenet21k_randaug_strong_ft_ilsvrc2012": Reference(
        f"{_B16}, ImageNet-21k, fine-tuned on ImageNet at 384 px", _vmoe(1.5)
    ),
    "eee_s32_last2_ilsvrc2012": Reference("E3 S/32, ImageNet", refused=_E3),
    "eee_s32_last2_ilsvrc2012_ft_cifar100": Reference("E3 S/32, CIFAR-100", refused=_E3),
}


def of_path(path: str | os.PathLike[str]) -> Reference | None:
    """The published checkpoint whose name a path ends in, wherever its files are; None if it is none of those."""
    return REFERENCES.get(pathlib.PurePath(os.fspath(path)).name.removesuffix(".index"))


def locate(given: str, say: Callable[[str], None]) -> str:
    """The path of a checkpoint: of a published one, called by its name or address, the files are fetched first.

    Args:
      given: a path, a name of :data:`REFERENCES`, or ``gs://vmoe_checkpoints/NAME``.
      say: prints a line.

    Raises:
      ValueError: a checkpoint that cannot be imported, a name that is nearly a published one, or files that cannot be
        fetched; says where they are.
    """
    reference = of_path(given)
    if reference is not None and reference.refused:
        raise checks.error("--from", "a checkpoint that can be imported", f"{given}: {reference.refused}")
    if given not in (name := pathlib.PurePath(given).name, f"gs://{_BUCKET}/{name}"):
        return given
    if os.path.exists(given) or os.path.exists(f"{given}.index"):
        return given
    if reference is None:
        if name != given or difflib.get_close_matches(name, REFERENCES, n=1):
            raise checks.unknown(
                "--from", "a path, or the name of a published V-MoE (docs/interop.md)", name, REFERENCES
            )
        return given
    folder = cache_folder()
    say(f"{name}: {reference.title}; files in {folder}")
    try:
        _fetch(name, folder, say)
    except checks.InputError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as problem:  # URLError is an OSError
        raise checks.InputError(
            f"--from: expected the files of {name} at gs://{_BUCKET}, which cannot be reached from here; received "
            f"{_words(problem)}. Where they can be, run: gsutil -m cp 'gs://{_BUCKET}/{name}.*' FOLDER; then pass "
            f"--from=FOLDER/{name}"
        ) from None
    return str(folder / name)


def cache_folder() -> pathlib.Path:
    """Where fetched checkpoints are kept."""
    return storage.cache_folder() / "checkpoints"


def _fetch(name: str, folder: pathlib.Path, say: Callable[[str], None]) -> None:
    """Fetches the index and all shards that are not there yet; a file is there whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / f"{name}.index"
    if not index.exists():
        _fetch_file(index)
    count = vmoe_shards.read_index(index).num_shards
    for number in range(count):
        shard = folder / f"{name}.data-{number:05d}-of-{count:05d}"
        if not shard.exists():
            say(f"fetching {shard.name}")
            _fetch_file(shard)


def _fetch_file(path: pathlib.Path) -> None:
    address = f"{_SERVER}/{_BUCKET}/{path.name}"
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching_") as folder:
        unfinished = pathlib.Path(folder) / path.name
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as answer, unfinished.open("wb") as file:
                shutil.copyfileobj(answer, file)
        except urllib.error.HTTPError as problem:
            problem.close()  # it is an answer, too
            raise
        length = answer.headers.get("Content-Length")
        if length is not None and int(length) != (received := unfinished.stat().st_size):
            raise ValueError(f"{received:,} of {int(length):,} bytes")
        unfinished.replace(path)


def _words(problem: Exception) -> str:
    reason = getattr(problem, "reason", None) or problem
    return re.sub(r"\s+", " ", f"{type(problem).__name__} ({reason})")[:200]
