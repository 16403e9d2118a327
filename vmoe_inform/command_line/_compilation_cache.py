"""Compiled programs are kept between runs, by JAX's compilation cache."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform

import jax
from absl import logging

from vmoe_inform import storage

_PLACE = "JAX_COMPILATION_CACHE_DIR"  # JAX's own setting; an empty one is none
_SWITCH = "JAX_ENABLE_COMPILATION_CACHE"


def turn_on() -> None:
    """Names a folder for JAX's compilation cache, where the user has named none.

    It is ``compiled/JAXLIB-MACHINE`` in the user's cache folder. Programs for a CPU use its instructions, so MACHINE is
    a hash of these: machines of other kinds may share a home. JAX itself looks up programs by all else that matters.
    It compiles again what it cannot read. A folder that cannot be written to is one warning.
    """
    if _PLACE in os.environ or os.environ.get(_SWITCH, "true").lower() in ("0", "false", "off", "no"):
        return
    folder = storage.cache_folder() / "compiled" / f"{importlib.metadata.version('jaxlib')}-{machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as problem:
        logging.warning("compiled programs are not kept: %s: %s", folder, problem.strerror or problem)
        return
    os.environ[_PLACE] = str(folder)  # for the processes that this one starts
    jax.config.update("jax_compilation_cache_dir", str(folder))
    logging.info("compiled programs are kept in %s; %s=false is without, %s moves it", folder, _SWITCH, _PLACE)


def machine() -> str:
    """A hash of what programs for this machine's CPU depend on: its kind and its instructions."""
    instructions = ""
    about = pathlib.Path("/proc/cpuinfo")
    if about.exists():
        lines = about.read_text(errors="replace").splitlines()
        instructions = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{platform.machine()} {instructions}".encode()).hexdigest()[:8]
