"""The 15 corruptions in five severities of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), generated.

The package ``imagecorruptions`` draws them. Every image's randomness is seeded by (seed, corruption, severity, index
of the image). So a picture does not depend on the order or the process in which it is made.
"""

import concurrent.futures
import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import multiprocessing
import os
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from jaxtyping import UInt8

from vmoe_inform import checks, storage
from vmoe_inform.data.images.published import CORRUPTIONS, SEVERITIES  # a place in CORRUPTIONS is part of a seed
from vmoe_inform.evaluation import cache
from vmoe_inform.storage import locks

# As launch/install.sh installs it; its dependencies are among this package's own.
DISTRIBUTION = "imagecorruptions-imaug"
VERSION = "1.1.5"

MINIMUM_SIZE_PX = 32

# These two take a seed; the others draw from numpy's global generator.
_TAKE_SEED = ("impulse_noise", "glass_blur")

# The dearest first (milliseconds an image at 32 px: 12, 5, 2, 2), so that no process is left with one at the end.
_DEAREST = ("frost", "zoom_blur", "glass_blur", "motion_blur", "snow")

# With fewer pictures to draw than this, starting processes takes longer than drawing.
_PICTURES_WORTH_PROCESSES = 4000

# Distributions whose code decides what is drawn.
_DRAWING_PACKAGES = (DISTRIBUTION, "numba", "numpy", "pillow", "scikit-image", "scipy")


def is_installed() -> bool:
    """Whether the package that draws the corruptions is there: the module, from the distribution named above."""
    try:
        importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return False
    return importlib.util.find_spec("imagecorruptions") is not None


def corrupt(image: UInt8[np.ndarray, "P P 3"], index: int, corruption: str, severity: int, seed: int) -> np.ndarray:
    """One corrupted image. numpy's global generator is left as it was.

    Args:
      image: uint8, at least 32 px high and wide.
      index: of the image in its set.
      corruption: one of :data:`CORRUPTIONS`.
      severity: 1 to 5.
      seed: >= 0.

    Returns:
      uint8 [P, P, 3].

    Raises:
      ValueError: a corruption or severity that does not exist, or an image that is too small or of another type.
    """
    import imagecorruptions

    _check_set(corruption, severity)
    _check_images(image[None])
    words = [seed, CORRUPTIONS.index(corruption), severity, index]
    image_seed = int(np.random.SeedSequence(words).generate_state(1)[0])
    arguments = {"seed": image_seed} if corruption in _TAKE_SEED else {}
    state = np.random.get_state()  # noqa: NPY002  (the package draws from the legacy global generator)
    try:
        np.random.seed(image_seed)  # noqa: NPY002
        # zoom_blur prints each time that rounding makes a layer smaller than the image, a case that it handles.
        with contextlib.redirect_stdout(io.StringIO()):
            return imagecorruptions.corrupt(image, corruption_name=corruption, severity=severity, **arguments)
    finally:
        np.random.set_state(state)  # noqa: NPY002


def load(
    images: UInt8[np.ndarray, "n P P 3"], corruption: str, severity: int, *, seed: int, directory: storage.Path
) -> UInt8[np.ndarray, "n P P 3"]:
    """All images with one corruption, from the cache in ``directory`` or else drawn and kept there.

    Raises:
      ValueError: as :func:`corrupt`.
    """
    _check_set(corruption, severity)
    _check_images(images)

    def draw() -> np.ndarray:
        return np.stack([corrupt(image, index, corruption, severity, seed) for index, image in enumerate(images)])

    return cache.array(_path(cache.digest(images=images), corruption, severity, seed, directory), draw)


def generate_all(
    images: UInt8[np.ndarray, "n P P 3"],
    *,
    seed: int,
    directory: storage.Path,
    names: Sequence[str] = CORRUPTIONS,
    num_processes: int | None = None,
) -> None:
    """Draws whatever of the 75 sets is missing or damaged in the cache, in several processes if that is much.

    Args:
      images: at least 32 px high and wide.
      seed: as for :func:`corrupt`.
      directory: of the cache.
      names: of the corruptions, all by default.
      num_processes: None takes one for each core; 1 draws in this process. Further processes import the program's
        main module, which therefore has to guard what it runs by ``if __name__ == "__main__"``.

    Raises:
      ValueError: images that are too small or of another type, or num_processes < 1.
    """
    _check_images(images)
    if num_processes is not None and num_processes < 1:
        raise checks.error("num_processes", "None or a number >= 1", num_processes)
    content = cache.digest(images=images)
    if not any(_missing(content, names, seed, directory).values()):
        return
    # Of several processes that need them, as those of a study, one draws them.
    with locks.held(directory / "corruptions" / f"{content}-{seed}"):
        _generate(images, _missing(content, names, seed, directory), seed, directory, num_processes)


def _missing(content: str, names: Sequence[str], seed: int, directory: storage.Path) -> dict[str, list[int]]:
    """Severities of each corruption that the cache does not hold, the dearest corruption first."""
    return {
        corruption: [s for s in SEVERITIES if not cache.is_whole(_path(content, corruption, s, seed, directory))]
        for corruption in (*_DEAREST, *(name for name in CORRUPTIONS if name not in _DEAREST))
        if corruption in names
    }


def _generate(
    images: np.ndarray, missing: Mapping[str, list[int]], seed: int, directory: storage.Path, num_processes: int | None
) -> None:
    # Every severity is a piece of work, except that glass_blur compiles for seconds in each process that draws it.
    pieces = [
        (name, piece)
        for name, severities in missing.items()
        for piece in ([severities] if name == "glass_blur" else [[s] for s in severities])
        if piece
    ]
    num_sets = sum(len(severities) for severities in missing.values())
    if not num_sets:
        return
    if num_processes is None:
        num_processes = 1 if num_sets * len(images) < _PICTURES_WORTH_PROCESSES else os.cpu_count() or 1
    num_processes = min(num_processes, len(pieces))
    logging.info(
        "drawing %d sets of %d corrupted images in %d processes, kept in %s",
        num_sets,
        len(images),
        num_processes,
        directory,
    )
    if num_processes == 1:
        for piece in pieces:
            _draw_sets(images, piece, seed=seed, directory=directory)
        return
    # Spawned, not forked: the threads of the jax runtime do not survive a fork. The images go to each process once.
    with concurrent.futures.ProcessPoolExecutor(
        num_processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(images,),
    ) as pool:
        list(pool.map(functools.partial(_draw_in_worker, seed=seed, directory=directory), pieces))


def _draw_sets(images: np.ndarray, piece: tuple[str, list[int]], *, seed: int, directory: storage.Path) -> None:
    corruption, severities = piece
    for severity in severities:
        load(images, corruption, severity, seed=seed, directory=directory)


_images_of_worker: np.ndarray  # set in the processes of the pool only


def _start_worker(images: np.ndarray) -> None:
    import cv2

    global _images_of_worker
    _images_of_worker = images
    cv2.setNumThreads(1)  # in a pool of one process a core, OpenCV's own threads only get in each other's way


def _draw_in_worker(piece: tuple[str, list[int]], *, seed: int, directory: storage.Path) -> None:
    _draw_sets(_images_of_worker, piece, seed=seed, directory=directory)


def _path(content: str, corruption: str, severity: int, seed: int, directory: storage.Path) -> storage.Path:
    key = cache.digest(content=content, corruption=corruption, severity=severity, seed=seed, versions=_versions())
    return directory / "corruptions" / f"{corruption}-{severity}-{key}.npz"


@functools.cache
def _versions() -> Mapping[str, str]:
    import cv2  # of one of several distributions

    return {name: importlib.metadata.version(name) for name in _DRAWING_PACKAGES} | {"cv2": cv2.__version__}


def _check_set(corruption: str, severity: int) -> None:
    if corruption not in CORRUPTIONS:
        raise checks.error("corruption", f"one of {', '.join(CORRUPTIONS)}", corruption)
    if severity not in SEVERITIES:
        raise checks.error("severity", "1 to 5", severity)


def _check_images(images: np.ndarray) -> None:
    fits = images.ndim == 4 and images.shape[3] == 3 and min(images.shape[1:3]) >= MINIMUM_SIZE_PX and len(images)
    if images.dtype != np.uint8 or not fits:
        expected = f"uint8 [n, height, width, 3] of at least {MINIMUM_SIZE_PX} px and one image"
        raise checks.error("images", expected, f"{images.dtype} {images.shape}")
