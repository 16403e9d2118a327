"""HTML pages from templates: nothing unescaped, no name undefined, colours from :mod:`vmoe_inform.report.styles`."""

import functools
from typing import Any

import jinja2

from vmoe_inform import text
from vmoe_inform.report import styles


def render(package: str, name: str, **values: Any) -> str:
    """The template of a package, filled in.

    Args:
      package: of vmoe_inform, whose folder has the template; it may include those of this package too.
      name: of the template's file.
      values: what it shows.
    """
    return _environment(package).get_template(name).render(page_colors=styles.PAGE, **values)


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    """Keeps what it compiles: a program that writes several pages reads each template once."""
    packages = dict.fromkeys((package, "vmoe_inform.report"))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(one, ".") for one in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=text.finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment
