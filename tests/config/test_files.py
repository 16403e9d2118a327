"""Config files with mistakes, and fields on the command line."""

import json
import re

import pytest

from vmoe_inform import config as config_lib
from vmoe_inform import storage
from vmoe_inform.config import files as config_files

GOOD = "from vmoe_inform import config\ndef get_config(argument=None):\n    return config.default()\n"


def write(tmp_path, text):
    path = tmp_path / "own, ü = 1.py"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", r"received SyntaxError in FILE, line 1: invalid syntax"),
        ("x = 1\nx = 'ü\n", r"received SyntaxError in FILE, line 2: unterminated string literal"),
        (b"x = '\xff'\n", r"received SyntaxError in FILE.*: .*utf-8"),
        (b"x = '\0'\n", r"received (ValueError|SyntaxError) in FILE: source code .*null bytes"),
        (
            "def get_config():\n    x = 1\n    return 1 / 0\n",
            r"received ZeroDivisionError in FILE, line 3: division by",
        ),
        ("import no_such_module\n", r"received ModuleNotFoundError in FILE, line 1: No module named 'no_such_module'"),
        ("def get_config():\n    open('/no/such')\n", r"received FileNotFoundError in FILE, line 2: .*'/no/such'"),
        ("def get_config():\n    get_config()\n", r"received RecursionError in FILE, line 2: maximum recursion"),
        ("def get_config(a, b):\n    pass\n", r"received TypeError in FILE: get_config\(\) missing 2 required"),
        ("config = 3\n", r"expected a function get_config in FILE; received 'a file without one'"),
        ("get_config = 3\n", r"expected a function get_config in FILE; received"),
        ("def get_config():\n    pass\n", r"expected a ConfigDict from get_config of FILE, .*; received None"),
        ("def get_config():\n    return {'seed': 1}\n", r"expected a ConfigDict .*; received {'seed': 1}"),
        (
            GOOD.replace("return", "c =") + "    c.model.hiden_size = 3\n    return c\n",
            r"received AttributeError in FILE, line 4: .*hidden_size",
        ),
        ("raise ValueError('two\\nlines')\n", r"received ValueError in FILE, line 1: two lines"),
    ],
)
def test_a_mistake_in_a_config_file_is_one_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=r"^--config: expected [^\n]*; received [^\n]*$") as problem:
        config_files.load(str(path))
    assert re.search(message.replace("FILE", re.escape(str(path))), str(problem.value)), problem.value


@pytest.mark.parametrize("file", ["no_such.py", ".", "README.md/x.py", "s3://bucket/config.py", "", "x" * 5000])
def test_no_config_file(file):
    with pytest.raises(ValueError, match=r"^--config: expected [^\n]*; received [^\n]*$"):
        config_files.load(file)


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("digits", ("digits", None)),
        ("a.py:", ("a.py", "")),
        ("digits:from=gs://b/run", ("digits", "from=gs://b/run")),
        ("gs://b/c.py", ("gs://b/c.py", None)),
        ("gs://b/c.py:from=gs://b/run", ("gs://b/c.py", "from=gs://b/run")),
    ],
)
def test_file_and_argument(file, parts):
    assert config_files.split(file) == parts


def test_a_config_file_of_a_bucket(tmp_path, bucket_folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    storage.write_text(bucket_folder / "mine.py", GOOD.replace("=None", ""))
    config = config_files.load(f"{bucket_folder / 'mine.py'}:x=1", {"seed": 3, "train.steps": 200})
    assert config.seed == 3
    tree = config_lib.to_json(config_lib.parse(config))
    storage.write_json(bucket_folder / "run" / "config.json", tree)
    assert config_lib.parse(config_files.load(str(bucket_folder / "run" / "config.json"))) == config_lib.parse(config)
    with pytest.raises(ValueError, match=r"--config: expected a config file, such as gs://.*/run/config\.json; "):
        config_files.load(str(bucket_folder / "run"))
    with pytest.raises(ValueError, match=r"--config: expected a config file, or one of the names .*; received 'gs://"):
        config_files.load(str(bucket_folder / "missing.py"))


def test_a_file_is_found_in_the_home_folder_and_gets_its_argument(tmp_path, monkeypatch):
    write(
        tmp_path, GOOD.replace("return config.default()", "c = config.default(); c.data.tfds_name = argument; return c")
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    config = config_files.load("~/own, ü = 1.py:a=b:c", {"train.steps": 3, "evaluation.suites": ("c",)})
    assert (config.data.tfds_name, config.train.steps, config.evaluation.suites) == ("a=b:c", 3, ("c",))


def test_fields_that_the_file_does_not_have(tmp_path):
    path = write(
        tmp_path, "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({'seed': 's'})\n"
    )
    for field in ("model.hidden_size", "seed"):
        with pytest.raises(
            ValueError, match=rf"^{field}: expected a field of the config that .* returns .*; received 3$"
        ):
            config_files.load(str(path), {field: 3})


def test_fields_are_taken_off_a_command_line():
    line = "--config=a.py --config.seed=1 --config.train.steps 7 word --config.data.random_flip -config.seed=2"
    line += " --noconfig.model.moe.batch_priority --config.evaluation.suites=clean,c --x.seed=3"
    line += " --config.data.directory=a=b -- --config.seed=4"
    rest, fields = config_files.take_fields(line.split())
    assert rest == ["--config=a.py", "word", "--x.seed=3", "--", "--config.seed=4"]
    assert fields == {
        "seed": 2,
        "train.steps": 7,
        "data.random_flip": True,
        "model.moe.batch_priority": False,
        "evaluation.suites": ("clean", "c"),
        "data.directory": "a=b",
    }


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.trian.steps=3", r"config: expected one of the keys .*; received 'trian' \(did you mean 'train'\?\)"),
        ("--config.train=3", "train: expected a field of this group, .*; received '--config.train=3'"),
        ("--config.model.router.options={}", "model.router.options: expected a field of this group, .*"),
        ("--config.seed.x=3", "seed: expected a field without fields of its own; received 'seed.x'"),
        ("--config.seed", "seed: expected int >= 0 .*, as --config.seed=VALUE; received 'nothing'"),
        ("--noconfig.seed", "seed: expected int >= 0 .*, as --config.seed=VALUE; received '--noconfig.seed'"),
        ("--config.=3", "config: expected one of the keys .*; received ''"),
        ("--config.train.steps=3e9", "train.steps: expected int >= 1 and <= 2147483647 or None; received 3000000000.0"),
        ("--config.train.steps=3000000000", "train.steps: expected int .*; received 3000000000"),
        ("--config.train.watchdog_seconds=1e30", "train.watchdog_seconds: expected float .* <= 100000000 or None; rec"),
        ("--config.evaluation.suites=clean,,c", "evaluation.suites: expected a comma list .*; received 'clean,,c'"),
    ],
)
def test_bad_fields(argument, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        config_files.take_fields([argument])


def test_a_suite_is_named_once():
    config = config_lib.default()
    config.train.epochs = 1.0
    config.evaluation.suites = ("c", "c")
    with pytest.raises(ValueError, match=r"^evaluation.suites: expected each suite once; received \('c', 'c'\)"):
        config_lib.parse(config)


def test_paths_of_a_config_are_local_or_in_a_bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for field in ("data.directory", "data.suites_directory", "train.initial_checkpoint", "evaluation.cache_directory"):
        assert config_files.take_fields([f"--config.{field}=~/x"])[1] == {field: f"{tmp_path}/x"}
        for path in (
            "gs://bucket",
            "s3://x",
            "gs:/x",
            "https://x/y",
            "file:///x",
            "~no_such_user/x",
            "a\0b",
            "x/" * 3000,
        ):
            with pytest.raises(ValueError, match=f"^{field}: expected path on this machine[, ].*; received '"):
                config_files.take_fields([f"--config.{field}={path}"])
        for path in ("", "gs://bucket/x", "a b,c/ü@=", "./gs:/x", "a:b", "x~"):
            assert config_files.take_fields([f"--config.{field}={path}"])[1] == {field: path}


def test_the_config_of_a_run_repeats_it(tmp_path):
    """Also with the options of a step that the run did not have, and a field of an older version's name left out."""
    config = config_lib.parse(
        config_files.load("digits:router=xmoe@cosine.temperature=0.1", {"model.num_classes": 12, "train.epochs": 3.0})
    )
    written = config_lib.to_json(config_lib.with_class_names(config, [str(number) for number in range(12)]))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(written))
    loaded = config_files.load(str(path))
    assert config_lib.to_json(config_lib.parse(loaded)) == written
    changed = config_lib.parse(config_files.load(str(path), {"model.router.score": "linear", "train.epochs": 4.0}))
    assert (changed.model.router.options["linear"], changed.train.epochs) == ({"bias": False}, 4.0)


@pytest.mark.parametrize(
    ("content", "argument", "message"),
    [
        ("{", "", r"FILE: expected JSON as it was written; received "),
        ("[]", "", r"FILE: expected JSON as it was written; received .* in place of an object"),
        ('{"sed": 3}', "", r"FILE: config: expected one of the keys .*; received 'sed' \(did you mean 'seed'\?\)"),
        ("{}", "", r"FILE: train: expected exactly one of train.steps and train.epochs"),
        ("{}", ":router=vmoe", r"--config: expected FILE without :ARGUMENT; it says what every setting is; received"),
    ],
)
def test_a_damaged_config_of_a_run_is_one_line(tmp_path, content, argument, message):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"^{message.replace('FILE', re.escape(str(path)))}"):
        config_files.load(f"{path}{argument}")
    with pytest.raises(ValueError, match=rf"^--config: expected a config file, such as {re.escape(str(path))}; rec"):
        config_files.load(str(tmp_path))


def test_a_name_that_is_nearly_a_config_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = r"--config: expected a config file, or one of the names digits, .*, wordnet; received "
    for given, meant in {"configs/digits.py": "digits", "digits.py": "digits", "other": ""}.items():
        with pytest.raises(ValueError, match=known) as problem:
            config_files.load(given)
        assert ("did you mean 'digits', which comes with the package?" in str(problem.value)) == bool(meant)
    with pytest.raises(ValueError, match=rf"{known}'digit' \(did you mean 'digits'\?\)$"):
        config_files.load("digit")


def test_steps_on_the_command_line_replace_epochs_and_epochs_replace_steps():
    for fields, expected in (
        ({"train.steps": 9}, (9, None)),
        ({"train.epochs": 2.0}, (None, 2.0)),
        ({"train.steps": None}, (None, 64.0)),
        ({"train.steps": 9, "train.epochs": None}, (9, None)),
    ):
        train = config_lib.parse(config_files.load("digits", fields)).train
        assert (train.steps, train.epochs) == expected
    with pytest.raises(ValueError, match=r"^train: expected exactly one of"):
        config_lib.parse(config_files.load("digits", {"train.steps": 9, "train.epochs": 2.0}))


def test_an_option_on_the_command_line_is_of_a_step_that_some_run_has():
    routers = [
        config_lib.parse(config_files.load(f"digits:router={name}")).model.router for name in ("vmoe", "attention_vmoe")
    ]
    fields = {"model.router.options.attention.sigma": 0.5, "train.steps": 9}
    config_files.check_options_are_used(fields, routers)
    with pytest.raises(ValueError, match=r"^model.router.options.attention.sigma: expected an option of a step that "):
        config_files.check_options_are_used(fields, routers[:1])
