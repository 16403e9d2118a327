r"""Makes a run of a checkpoint that another program wrote: from there it is evaluated, analysed and fine-tuned as any.

    python -m vmoe_inform.import_checkpoint --from=PATH --workdir=RUN [--model.KEY=VALUE ...] [--data.KEY=VALUE ...]
        [--config=FILE]

PATH is a file, a folder, what names of files begin with, or the name of a published V-MoE (docs/interop.md). Sizes are
read off the arrays. What they do not say is asked for by name: --model.moe.num_selected_experts=2. A name is a field of
config.model, its last part, or what the other program calls it. What nothing says of its images is given as
--data.KEY=VALUE, e.g. --data.pixel_mean=0.5. The flag --config says what the rest of the run is.

Prints the settings, and every array with what becomes of it. Arrays without a counterpart are an error, on either side.
With --allow_missing=head those of that name start anew, or are left out. The flag --classes=FILE names the classes, one
a line in the order of the logits. So does --classes=imagenet, which is assumed of 1,000 classes without names. The flag
--classes=unknown drops the names. Exit codes: 0 done, 2 bad input.
"""

from absl import flags

from vmoe_inform import checks, command_line, storage

_FROM = command_line.define_checkpoint()
_WORKDIR = command_line.define_run_path("workdir", "Folder of the run that is written.")
_CONFIG = command_line.define_config()
_MODEL = command_line.define_model()
_DATA = command_line.define_data()
_ALLOW_MISSING = command_line.define(
    "allow_missing", tuple[checks.Name, ...], (), "Arrays, or beginnings of their names, that one side may lack."
)
_CLASSES = command_line.define_run_path(
    "classes", "File of class names, one a line, in the order of the logits; or imagenet; or unknown."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would become of each array, and stop.")


def main(_: list[str]) -> None:
    """Prints the tables and writes the run."""
    given = command_line.required(_FROM, "a checkpoint")
    workdir = None
    if not _DRY_RUN.value:
        workdir = storage.path("--workdir", command_line.required(_WORKDIR, "a folder for the run"))
    from vmoe_inform.interop import write_run

    with write_run.new_folder(workdir):
        _import(given, workdir)


def _import(given: str, workdir: storage.Path | None) -> None:
    from vmoe_inform.interop import checkpoint_import, exported, formats, plan, references, run_config, table, write_run

    path = references.locate(given, command_line.say)
    stored = formats.open_checkpoint(path)
    if exported.is_exported(stored):
        exported.refuse_settings(_CONFIG.file, _MODEL.fields, _DATA.fields, _ALLOW_MISSING.value, _CLASSES.value)
        if workdir is None:
            exported.read(stored)  # finds what writing would
        else:
            write_run.write_exported(stored, workdir)
        command_line.say(f"{workdir or stored.path}: all {len(stored.arrays)} arrays as this package exported them")
        return
    config, set_fields = _CONFIG.value, _CONFIG.fields
    found = checkpoint_import.prepare(
        path, given=_MODEL.fields, config=config, set_fields=set_fields, allow_missing=_ALLOW_MISSING.value
    )
    command_line.say(f"{stored.path}: {found.family.title}; {stored.num_bytes:,} bytes in {len(stored.arrays)} arrays")
    command_line.say(*table.lines_of_settings(found.values))
    if found.plan.problems:
        command_line.say(*table.lines_of_arrays(found.plan.rows))
        found.plan.check()
    run, data = run_config.make(found, config, classes=_CLASSES.value, set_fields=set_fields, given=_DATA.fields)
    params = {} if workdir is None else plan.read_params(found.plan)  # before the table, which would hide an error
    command_line.say(*table.lines_of_arrays(found.plan.rows))
    command_line.say(*table.lines_of_data(run.data, data["class_names"].origin))
    if workdir is not None:
        variables = plan.complete(found.plan, params, run.seed)
        write_run.write(write_run.record_of(found, data), run, variables, workdir)
        command_line.say(f"{workdir}: written. Next: {table.next_command(workdir, asks_for_data=config is None)}")


if __name__ == "__main__":
    command_line.run(main, keeps_programs=True)
