"""Predictions of image files are those of evaluation, in every form in which they are given out."""

import csv
import functools
import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from scipy.special import softmax

from tests import processes, tiny
from tests.report.test_page import Visit
from vmoe_inform import config as config_lib
from vmoe_inform import tasks
from vmoe_inform.data.records import ArrayRecords, Source
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.nn import models
from vmoe_inform.prediction import Prediction, find_files, likeliest, predict, report
from vmoe_inform.prediction.page import evenly, page_of_files
from vmoe_inform.prediction.predict import readable
from vmoe_inform.prediction.table import Table
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding.mesh import make_mesh

CLASSES = ("n01440764", "n01443537", *map(str, range(2, 10)))  # the first two are ImageNet's
COUNT = 11


def config_of(**overrides):
    fields = {"evaluation__batch_size": 4, "data__class_names": CLASSES, **overrides}
    return config_lib.parse(tiny.config_dict("attention_vmoe", **fields))


@pytest.fixture(scope="module")
def run():
    config = config_of()
    model = models.from_config(config.model)
    return Run(
        "mine", pathlib.Path("mine"), 7, config, model, tiny.variables(model), make_mesh(1, 1, jax.devices()[:1])
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (COUNT, 40, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def photos(images, tmp_path_factory):
    """Pictures, three of them in a folder; the second one and a whole batch later are no images."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "x").mkdir()
    paths = [folder / ("x" if number > 7 else "") / f"{number:02d}.png" for number in range(COUNT)]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    for number in (1, 4, 5, 6, 7):
        paths[number].write_bytes(b"no image")
    return folder


READABLE = [0, 2, 3, 8, 9, 10]


@pytest.fixture(scope="module")
def found(run, photos):
    return list(predict(run, find_files([str(photos)]), experts=True))


def test_they_are_those_of_evaluation(run, images, found):
    """Of the same images in the same groups; unreadable ones take no slots there either."""
    predictor = Predictor(run.model, tasks.from_config(run.config), run.mesh)
    answers, _, chosen = predictor.predict_with_routing(
        run.variables, Source(ArrayRecords(images, np.zeros(COUNT, np.int32)), CLASSES)
    )
    assert [one.position for one in found] == list(range(COUNT))
    assert [one.position for one in found if one.logits is not None] == READABLE
    alone = [2, 3, 8, 9]  # both images of their group can be read
    np.testing.assert_array_equal([found[position].logits for position in alone], answers.logits[alone])
    experts = [found[position].experts["block_1"] for position in alone]
    np.testing.assert_array_equal(experts, chosen["block_1"][alone])
    problems = {one.position: one.problem for one in found if one.problem}
    assert list(problems) == [1, 4, 5, 6, 7]
    assert all(problem.startswith("the bytes of no image format") for problem in problems.values())


def test_the_likeliest_classes_come_first():
    logits = np.array([0.0, 3.0, -1.0, 3.0], np.float32)
    expected = softmax(logits.astype(float))
    labels, probabilities = zip(*likeliest(logits, 3), strict=True)
    assert labels == (1, 3, 0)
    np.testing.assert_allclose(probabilities, expected[[1, 3, 0]])
    assert likeliest(np.array([1e4, 0.0]), 1) == [(0, 1.0)]


@pytest.fixture(scope="module")
def reported(run, found, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    said, complaints = [], []
    outputs = report.Outputs(folder / "a.csv", folder / "a.npz", folder / "a.html")
    files = find_files([str(photos)])
    unreadable = report.report(
        found,
        files,
        CLASSES,
        outputs,
        page_of=functools.partial(page_of_files, run, files),
        top=2,
        width=60,
        say=said.append,
        complain=complaints.append,
    )
    assert unreadable == COUNT - len(READABLE)
    return folder, said, complaints


def test_the_terminal_has_a_line_for_each_file(reported, found, photos):
    folder, said, complaints = reported
    assert said[-3:] == [str(folder / name) for name in ("a.csv", "a.npz", "a.html")]
    assert "The terminal has room for 1 of 2 classes; --csv=FILE has all." in said
    assert len(said) == len(READABLE) + 4
    for line, position in zip(said, READABLE, strict=False):
        ((label, share),) = likeliest(found[position].logits, 1)
        title = {0: "tench", 1: "goldfish"}.get(label, str(label))
        assert line.startswith("…")
        assert re.fullmatch(rf"…\S+/{position:02d}\.png +{title} +{100 * share:.1f} %", line)
    assert len({len(line) for line in said[: len(READABLE)]}) == 1
    assert [line.split(": the bytes")[0] for line in complaints] == [
        f"unreadable: {photos}/{number:02d}.png" for number in (1, 4, 5, 6, 7)
    ]


def test_the_csv_file_has_a_row_for_each_file(reported, found, photos):
    with (reported[0] / "a.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "label_1", "class_1", "probability_1", "label_2", "class_2", "probability_2", "problem"]
    assert [row[0] for row in rows] == [one.name for one in found]
    titles = {0: "tench, Tinca tinca", 1: "goldfish, Carassius auratus"}
    for row, one in zip(rows, found, strict=True):
        if one.problem:
            assert row[1:] == [""] * 6 + [one.problem]
            continue
        expected = likeliest(one.logits, 2)
        assert [int(row[1]), int(row[4])] == [label for label, _ in expected]
        assert [row[2], row[5]] == [titles.get(label, str(label)) for label, _ in expected]
        np.testing.assert_allclose([float(row[3]), float(row[6])], [share for _, share in expected], rtol=1e-5)
        assert row[7] == ""


def test_the_npz_file_has_logits_and_experts(reported, found):
    with np.load(reported[0] / "a.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["class_names", "experts/block_1", "files", "logits"]
        assert arrays["files"].tolist() == [found[position].name for position in READABLE]
        assert arrays["class_names"].tolist() == list(CLASSES)
        np.testing.assert_array_equal(arrays["logits"], [found[position].logits for position in READABLE])
        experts = [found[position].experts["block_1"] for position in READABLE]
        np.testing.assert_array_equal(arrays["experts/block_1"], experts)


def test_the_page_names_the_files_and_knows_no_right_class(browser, reported, photos):
    visit = Visit(browser, 1200, (reported[0] / "a.html").as_uri())
    visit.page.wait_for_selector("body[data-ready]")
    assert visit.complaints == []
    pictures = visit.page.locator("#records img")
    assert pictures.count() == len(READABLE)
    visit.page.locator("#records button").nth(3).click()
    verdict = visit.page.locator(".verdict").first.inner_text()
    assert re.fullmatch(rf"{photos}/x/08\.png: says \w+ \([\d.]+ % sure\)\.", verdict)


def test_a_page_shows_images_evenly_over_all():
    assert evenly([3, 5, 8], 24) == [3, 5, 8]
    assert evenly(range(0, 100, 2), 4) == [0, 24, 50, 74]


def _reported(predictions, files, folder):
    """Reports into a folder, without a word."""
    outputs = report.Outputs(folder / "a.csv", folder / "a.npz", folder / "a.html")
    quiet = {"say": lambda _: None, "complain": lambda _: None}
    return report.report(predictions, files, CLASSES, outputs, page_of=lambda _: "page", top=1, **quiet)


def test_nothing_is_written_of_a_model_that_says_no_number(photos, tmp_path):
    files = find_files([str(photos / "00.png"), str(photos / "02.png")])
    batch = {"mask": np.array([True, True, False]), "index": np.arange(3)}
    logits = np.array([[0.0] * 10, [np.nan] * 10, [np.inf] * 10])  # the last one only fills up the batch
    with pytest.raises(ValueError, match=r"^logits: expected finite numbers; received .NaN or infinity for .*02.png"):
        _reported(readable(files, logits, {}, batch), files, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_no_file_can_be_read_there_are_no_arrays(found, photos, tmp_path):
    assert _reported([found[5]], find_files([str(photos / "05.png")]), tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(("width", "top"), [(None, 5), (200, 5), (40, 1), (5, 1)])
def test_a_narrow_terminal_shows_fewer_classes(width, top):
    names = ["a.png", "folder/of/a/very/long/name/with/a/lot/in/it/b.png"]
    assert Table(names, ["cat", "a name that is far too long to be shown"], top=5, width=width).top == top


def test_names_that_are_wide_on_a_terminal_keep_the_columns():
    """A character of Chinese takes two of them."""
    names = ["写真/日本語.png", "a.png"]
    table = Table(names, ["cat", "犬"], top=2)
    lines = [table.line(Prediction(0, name, np.array([1.0, 0.0], np.float32))) for name in names]
    assert len({cell_len(line) for line in lines}) == 1
    assert lines[0] == "写真/日本語.png  cat  73.1 %  犬   26.9 %"
    long = Table(["写" * 30 + ".png"], ["cat"], top=1)
    assert long.line(Prediction(0, "写" * 30 + ".png", np.zeros(1))) == f"…{'写' * 17}.png   cat 100.0 %"


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def runs(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    tiny.write_run(folder / "mine", run.config, {7: run.variables})
    plain = config_of(model__moe__layers="none", model__router__inform="none")
    tiny.write_run(folder / "dense", plain, {7: {"params": {}}})
    return folder


CASES = {
    ("--workdir={runs}/mine", "{photos}/nope.png"): "files: expected image files, or folders of them; received ",
    ("--workdir={runs}/mine",): "command line: expected image files, or folders of them, and flags",
    ("{photos}",): "--workdir: expected the folder of a run; received nothing",
    ("--workdir={runs}/mine@8", "{photos}"): "checkpoint: expected one of step 8 in",
    ("--workdir={runs}/mine", "{photos}", "--top=11"): "--top: expected at most the model's 10 classes; received 11",
    ("--workdir={runs}/mine", "{photos}", "--top=0"): "--top: expected int >= 1 and <= 2147483647 or None; received 0",
    ("--workdir={runs}/mine", "{photos}", "--csv={photos}"): "--csv: expected a file that can be written, in a folder",
    ("--workdir={runs}/dense", "{photos}", "--routing=a.html"): "model.moe.layers: expected at least one MoE layer",
    ("--workdir={runs}/mine", "{photos}", "--batch_size=3"): "evaluation.batch_size: expected a multiple of ",
}
GOOD = ("--workdir={runs}/mine@7", "--top=1", "{photos}/00.png", "{photos}/x")
PARTLY = ("--workdir={runs}/mine", "{photos}/01.png", "{photos}/02.png")


@pytest.fixture(scope="module")
def ended(runs, photos, tmp_path_factory):
    """Exit code, output and errors of each command line."""
    command_lines = (*CASES, GOOD, PARTLY)
    lines = [tuple(one.format(runs=runs, photos=photos) for one in arguments) for arguments in command_lines]
    imports = ("prediction.page", "prediction.report")
    found = processes.run_many("predict", lines, tmp_path_factory.mktemp("ended"), imports=imports)
    return dict(zip(command_lines, found, strict=True))


def test_the_command_prints_a_line_for_each_file(ended):
    code, printed, errors = ended[GOOD]
    assert code == 0, errors
    lines = printed.splitlines()
    assert [re.sub(r".*/(\d+\.png) .* [\d.]+ %", r"\1", line) for line in lines] == [
        "00.png",
        "08.png",
        "09.png",
        "10.png",
    ]


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_predicted(ended, photos):
    code, printed, errors = ended[PARTLY]
    assert code == 2
    assert re.fullmatch(r".*/02\.png( +\w+ +[\d.]+ %){5}\n", printed)
    assert f"unreadable: {photos}/01.png: the bytes of no image format" in errors
    assert errors.splitlines()[-1] == "error: files: expected images; received 1 of 2 that cannot be read, named above"


@pytest.mark.parametrize("arguments", CASES)
def test_bad_input_is_one_line(ended, arguments):
    code, printed, errors = ended[arguments]
    assert (code, printed) == (2, "")
    assert errors.splitlines()[-1].startswith(f"error: {CASES[arguments]}")
