"""From checkpoints and images to the content of analysis.json."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vmoe_inform import checks
from vmoe_inform.analysis import document
from vmoe_inform.analysis.collect import tables
from vmoe_inform.analysis.collect.images import WHOLE, Choice, Images
from vmoe_inform.analysis.collect.observing import Observer, Seen
from vmoe_inform.analysis.collect.tables import Table
from vmoe_inform.axes import Tree
from vmoe_inform.config import Config
from vmoe_inform.data import classes
from vmoe_inform.data.images.published import CORRUPTIONS, SEVERITIES
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding import watchdog as watchdog_lib
from vmoe_inform.sharding.watchdog import Watchdog

Say = Callable[[str], None]


def check_comparable(own: Config, other: Config) -> None:
    """Raises ValueError, with all that differs, unless two runs' routers can be set beside each other."""
    facts = {
        "model.moe.num_experts (E)": lambda config: config.model.moe.num_experts,
        "model.moe.num_selected_experts (K)": lambda config: config.model.moe.num_selected_experts,
        "blocks with a MoE layer": lambda config: list(config.model.moe_layers),
        "model.image_size_px": lambda config: config.model.image_size_px,
        "model.patch_size_px": lambda config: config.model.patch_size_px,
        "tokens of an image": lambda config: config.model.num_tokens,
        "model.num_classes": lambda config: config.model.num_classes,
        "data.source": lambda config: config.data.source,
        "data.tfds_name": lambda config: config.data.tfds_name,
    }
    differing = [
        f"{field}: expected {fact(own)!r} as in --workdir; received {fact(other)!r}"
        for field, fact in facts.items()
        if fact(own) != fact(other)
    ]
    names, theirs = own.data.class_names, other.data.class_names
    if names and theirs and {*names} != {*theirs} and len(names) == len(theirs):
        differing.append(f"classes: {classes.difference(theirs, names)}")
    if differing:
        raise checks.InputError("--against is a run of another shape. " + "; ".join(differing))


def collect(
    own: Run,
    images: Images,
    choice: Choice,
    *,
    before: Run | None = None,
    other: Run | None = None,
    adjacency_states: Mapping[int, Tree] | None = None,
    watchdog: Watchdog = watchdog_lib.OFF,
    say: Say = print,
) -> tuple[Table, np.ndarray]:
    """Looks at a checkpoint of a run, and at what changed since an earlier one, if there is one.

    At no time are there probabilities of more than a batch; of all images the experts of their tokens are kept, a byte
    each (two from 256 experts on).

    Args:
      own: the run.
      images: that it is shown.
      choice: which of them.
      before: an earlier checkpoint of the run.
      other: a run to compare it with.
      adjacency_states: by step, the collection ``routing`` of all checkpoints whose adjacencies are to be shown.
      watchdog: is told of every batch.
      say: called with a line for each piece of work that is done.

    Returns:
      the content of analysis.json, and which of the images could be read [n].

    Raises:
      ValueError: images that cannot be had, too many that cannot be read, or ``other`` of another shape.
    """
    if other is not None:
        check_comparable(own.config, other.config)
    source, crop = images.clean(), None
    if choice.corruption is not None and choice.severity is not None:
        source, crop = images.corrupted(choice.corruption, choice.severity), WHOLE
    if choice.all_corruptions:
        images.corrupted(CORRUPTIONS[0], SEVERITIES[0])  # if there are none, that is said before any work

    def facts_of(of: Run, seen: Seen) -> Table:
        return document.run_facts(
            of.config.model,
            name=of.name,
            step=of.step,
            suite=str(choice),
            count=seen.count,
            top1=seen.top1,
        )

    def layers_of(of: Run, seen: Seen) -> dict[str, Table]:
        num_tokens = of.config.model.num_tokens
        return {block: tables.layer_table(sums, num_tokens=num_tokens) for block, sums in seen.sums.items()}

    observer = Observer(own, watchdog=watchdog)
    seen = observer.observe(own.variables, source, crop=crop)
    say(f"{own.name}, step {own.step}: {seen.count:,} images ({choice}), top-1 {100 * seen.top1:.1f} %")
    layers = layers_of(own, seen)
    if adjacency_states:
        for block, table in tables.adjacency(own.config.model, adjacency_states, step=own.step).items():
            layers[block]["adjacency"] = table

    fluctuation = None
    if before is not None:
        changes = tables.fluctuation(_choices(observer, before.variables, source, crop, seen), _readable(seen))
        fluctuation = {"from_step": before.step, "to_step": own.step, "layers": changes}
        say(f"{own.name}: fluctuation from step {before.step} to {own.step}")
    against = None
    if other is not None:
        # Runs that differ in their seed only, or checkpoints of one, share what is compiled.
        same = (own.config.model, own.config.data) == (other.config.model, other.config.data)
        observer_of_other = observer if same else Observer(other, watchdog=watchdog)
        seen_by_other = observer_of_other.observe(other.variables, source, crop=crop)
        say(f"{other.name}, step {other.step}: top-1 {100 * seen_by_other.top1:.1f} %")
        against = {
            "run": facts_of(other, seen_by_other),
            "layers": tables.against(layers, layers_of(other, seen_by_other)),
        }
    corruptions = _corruptions(observer, own.variables, images, seen, say) if choice.all_corruptions else None
    found = document.analysis(
        facts_of(own, seen),
        layers,
        images.class_names,
        fluctuation=fluctuation,
        against=against,
        corruptions=corruptions,
    )
    return found, seen.readable


def _readable(seen: Seen) -> dict[str, np.ndarray]:
    return {block: chosen[seen.readable] for block, chosen in seen.chosen.items()}


def _choices(observer: Observer, variables: Tree, source: Any, crop: float | None, seen: Seen) -> dict[str, np.ndarray]:
    """The experts of the same tokens as :func:`_readable` has, by another checkpoint."""
    chosen = {block: np.full_like(of_block, 0) for block, of_block in seen.chosen.items()}
    for places, _, experts in observer.choices(variables, source, crop=crop):
        for block, of_block in experts.items():
            chosen[block][places] = of_block
    return {block: of_block[seen.readable] for block, of_block in chosen.items()}


def _corruptions(observer: Observer, variables: Tree, images: Images, clean: Seen, say: Say) -> Table:
    """How routing and accuracy move under each corruption and severity, the same images before and after."""
    top1 = np.zeros((len(CORRUPTIONS), len(SEVERITIES)))
    rerouted = {block: np.zeros_like(top1) for block in clean.chosen}
    for row, corruption in enumerate(CORRUPTIONS):
        for column, severity in enumerate(SEVERITIES):
            right, changed, count = 0, dict.fromkeys(rerouted, 0), 0
            source = images.corrupted(corruption, severity)
            for places, hits, experts in observer.choices(variables, source, crop=WHOLE):
                both = clean.readable[places]
                count += int(np.count_nonzero(both))
                right += int(np.count_nonzero(hits[both]))
                for block, of_block in experts.items():
                    before = clean.chosen[block][places[both]]
                    changed[block] += int(np.count_nonzero(tables.changed(before, of_block[both])))
            top1[row, column] = right / count
            for block, number in changed.items():
                rerouted[block][row, column] = number / (count * clean.chosen[block].shape[1])
        say(f"{corruption}: top-1 {100 * top1[row, 0]:.1f} % at severity 1, {100 * top1[row, -1]:.1f} % at 5")
    return {
        "names": list(CORRUPTIONS),
        "severities": list(SEVERITIES),
        "top1": top1.tolist(),
        "clean_top1": clean.top1,
        "rerouted": {block: shares.tolist() for block, shares in rerouted.items()},
    }
