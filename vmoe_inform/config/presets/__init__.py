"""Named settings that config files share: routers by the papers' names, model sizes, places of MoE layers."""

from vmoe_inform.config.presets.language import set_papers_trunk
from vmoe_inform.config.presets.routers import ROUTERS, Preset, describe_routers, find_router, set_router
from vmoe_inform.config.presets.sizes import (
    LANGUAGE_SIZES,
    SIZES,
    set_experts,
    set_language_size,
    set_variant,
)
from vmoe_inform.config.presets.start import start, start_from_run, start_language

__all__ = [
    "LANGUAGE_SIZES",
    "ROUTERS",
    "SIZES",
    "Preset",
    "describe_routers",
    "find_router",
    "set_experts",
    "set_language_size",
    "set_papers_trunk",
    "set_router",
    "set_variant",
    "start",
    "start_from_run",
    "start_language",
]
