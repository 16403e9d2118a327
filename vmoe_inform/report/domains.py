"""What a page says about images and about text where the two differ."""

import dataclasses
from collections.abc import Mapping

from vmoe_inform import checks
from vmoe_inform.evaluation.results import Results


@dataclasses.dataclass(frozen=True)
class Words:
    """Words of a page.

    Attributes:
      models: what the runs are, and how experts come in.
      records: heading of a column of them.
      others: what other records would have to be drawn for another score, with its verb.
      token, tokens: what the router decides about.
      whole: what its tokens are part of.
      confident: what the reliability diagram counts.
    """

    models: str
    records: str
    others: str
    token: str
    tokens: str
    whole: str
    confident: str


_IMAGES = Words(
    models="These are image classifiers of the Mixture-of-Experts kind: an image is cut into patches, and in some "
    "layers each patch is worked on by only a few of several specialised sub-networks, the experts. A router decides "
    "which.",
    records="Images",
    others="images of the same kind were",
    token="patch",
    tokens="Patches",
    whole="image",
    confident="images",
)
_TEXT = Words(
    models="These are models of text of the Mixture-of-Experts kind: in some layers each word, or part of a word, is "
    "worked on by only a few of several specialised sub-networks, the experts. A router decides which.",
    records="Text",
    others="text of the same kind was",
    token="token",
    tokens="Tokens",
    whole="text",
    confident="texts",
)
_DOMAINS: Mapping[str | None, Words] = {None: _IMAGES, "images": _IMAGES, "tokens": _TEXT}  # by ``model.inputs``


def words_of(results: Mapping[str, Results]) -> Words:
    """The words for these runs.

    Raises:
      ValueError: some are of images and some of text, which nothing compares.
    """
    found = {result.model.inputs for result in results.values()}
    if len(found) != 1:
        received = ", ".join(f"{run} of {result.model.inputs or 'images'}" for run, result in results.items())
        raise checks.error("results", "runs of one kind of inputs, images or tokens", received)
    return _DOMAINS[found.pop()]
