"""Types of settings, with the bounds that a machine sets. What several of them make together, sizes.py bounds."""

from typing import Annotated, TypeAlias

from vmoe_inform import checks
from vmoe_inform.checks import Bound

Pixels: TypeAlias = Annotated[int, Bound(at_least=1, at_most=2**14)]  # side of an image
Batch: TypeAlias = Annotated[int, Bound(at_least=1, at_most=2**24)]  # images
Threads: TypeAlias = Annotated[int, Bound(at_least=0, at_most=1024)]  # or processes, of a host
Number: TypeAlias = Annotated[float, Bound(at_least=-1e18, at_most=1e18)]
Factor: TypeAlias = Annotated[float, Bound(above=0.0, at_most=2.0**20)]
Beta: TypeAlias = Annotated[float, Bound(at_least=0.0, at_most=1e6)]  # parameter of a Beta distribution; 0 is off
Devices: TypeAlias = Annotated[int, Bound(at_least=1, at_most=2**20)]
Pattern: TypeAlias = Annotated[str, checks.Text(1000)]  # regular expression
