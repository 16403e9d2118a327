r"""Makes a run of a checkpoint that another program wrote: from there it is evaluated, analysed and fine-tuned as any.

    python -m vmoe_inform.import_checkpoint --from=PATH --workdir=RUN [--model.KEY=VALUE ...] [--data.KEY=VALUE ...]
        [--config=FILE]

PATH is a file, a folder, what names of files begin with, or the name of a published V-MoE (docs/interop.md). Sizes are
read off the arrays. What they do not say is asked for by name: --model.moe.num_selected_experts=2. A name is a field of
config.model, its last part, or what the other program calls it. What nothing says of its images is given as
--data.KEY=VALUE, e.g. --data.pixel_mean=0.5. The flag --config says what the rest of the run is.

Prints the settings, and every array with what becomes of it. Arrays without a counterpart are an error, on either side.
With --allow_missing=head those of that name start anew, or are left out. A file of class names, one a line in the order
of the logits, is --classes=FILE; those of ImageNet are known. Exit codes: 0 done, 2 bad input.
"""

import pathlib

from absl import flags

from vmoe_inform import checks, command_line

_FROM = command_line.define("from", checks.Name, None, "Checkpoint: a file, folder, prefix, or a published name.")
_WORKDIR = command_line.define_path("workdir", "Folder of the run that is written.")
_CONFIG = command_line.define_config()
_MODEL = command_line.define_model()
_DATA = command_line.define_data()
_ALLOW_MISSING = command_line.define(
    "allow_missing", tuple[checks.Name, ...], (), "Arrays, or beginnings of their names, that one side may lack."
)
_CLASSES = command_line.define_path("classes", "File of class names, one a line, in the order of the logits.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would become of each array, and stop.")


def main(_: list[str]) -> None:
    """Prints the tables and writes the run."""
    given = command_line.required(_FROM, "a checkpoint")
    workdir = None if _DRY_RUN.value else pathlib.Path(command_line.required(_WORKDIR, "a folder for the run"))
    from vmoe_inform.interop import checkpoint_import, exported, formats, plan, references, run_config, table, write_run

    if workdir is not None:
        write_run.check_folder(workdir)
    path = references.locate(given, command_line.say)
    stored = formats.open_checkpoint(path)
    if exported.is_exported(stored):
        exported.refuse_settings(_CONFIG.file, _MODEL.fields, _DATA.fields, _ALLOW_MISSING.value, _CLASSES.value)
        if workdir is not None:
            write_run.write_exported(stored, workdir)
        command_line.say(f"{workdir or stored.path}: all {len(stored.arrays)} arrays as this package exported them")
        return
    set_fields = _CONFIG.fields if _CONFIG.file is not None else {}
    set_model = {field.removeprefix("model."): set_fields[field] for field in set_fields if field.startswith("model.")}
    found = checkpoint_import.prepare(
        path,
        given={**set_model, **_MODEL.fields},
        config=_CONFIG.value,
        allow_missing=_ALLOW_MISSING.value,
    )
    command_line.say(f"{found.stored.path}: {found.family.title}")
    for line in (*table.lines_of_settings(found.values), *table.lines_of_arrays(found.plan.rows)):
        command_line.say(line)
    found.plan.check()
    names = _CLASSES.value and run_config.read_class_names(pathlib.Path(_CLASSES.value), found.model.num_classes)
    config = run_config.make(found, _CONFIG.value, names or (), list(set_fields), _DATA.fields)
    for line in table.lines_of_data(config.data):
        command_line.say(line)
    if workdir is not None:
        variables = plan.complete(found.plan, plan.read_params(found.plan), config.seed)
        write_run.write(write_run.record_of(found), config, variables, workdir)
        command_line.say(f"{workdir}: written")


if __name__ == "__main__":
    command_line.run(main)
