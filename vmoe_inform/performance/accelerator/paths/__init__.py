"""Fast paths of the package with their references, those first that training uses most."""

from vmoe_inform.performance.accelerator.comparing import Path
from vmoe_inform.performance.accelerator.paths import attentions, dispatchers, losses, routers
from vmoe_inform.performance.accelerator.sizes import Sizes


def all_paths(sizes: Sizes) -> list[Path]:
    """The paths of this device, in the order in which they are compared."""
    return [*dispatchers.paths(sizes), *attentions.paths(sizes), *losses.paths(sizes), *routers.paths(sizes)]
