"""The folder of what is dear to get, and can be got again."""

import os
import pathlib


def cache_folder() -> pathlib.Path:
    """``$XDG_CACHE_HOME/vmoe_inform``, or that in ``~/.cache``."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vmoe_inform"
