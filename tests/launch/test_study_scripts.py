"""The scripts of studies, with a stand-in for the study."""

import re
import sys

import pytest

from tests.launch.stand_ins import ROOT, run, stand_in
from vmoe_inform import config as config_lib
from vmoe_inform.config import files
from vmoe_inform.studies import plan

# Notes its call; a study of one learning rate scores as much as its rate, and other programs are Python's.
STUDY = r"""
[ "$1" = - ] && exec "$REAL_PYTHON" "$@"
for argument; do
    case "$argument" in --workdir=*/learning_rates/*)
        folder="${argument#--workdir=}"
        mkdir -p "$folder"
        score="{\"score/$SUITE\": {\"mean\": {\"mean\": $(basename "$folder")}}}"
        echo "{\"routers\": {\"plain\": {\"measures\": $score}}}" >"$folder/study.json" ;;
    esac
done
"""


@pytest.mark.parametrize(
    ("data", "suite", "plain", "best", "jobs", "named"),
    [
        ("fashion_mnist", "clean", "vmoe", "0.004", "6", {}),
        ("wordnet", "perplexity", "smoe_top2", "0.0015", "1", {}),
        ("wordnet", "perplexity", "glam", "0.0015", "1", {"PLAIN": "glam"}),
    ],
)
def test_a_study_has_the_best_rate_of_the_plain_router_on_held_out_records(
    tmp_path, data, suite, plain, best, jobs, named
):
    stand_in(tmp_path / "bin", "python", STUDY)
    folder = tmp_path / "study"
    code, printed, errors, calls = run(
        tmp_path,
        *("launch/study_routers.sh", data, str(folder), "--config.train.batch_size=4"),
        **{
            "PYTHON": "python",
            "REAL_PYTHON": sys.executable,
            "SUITE": suite,
            "SEEDS": "7",
            "JOBS": jobs,
            "ROUTERS": "base,soft",
            **named,
        },
    )
    assert (code, printed) == (0, f"learning rate {best}\n"), errors
    *choosing, _, study = calls
    assert len(choosing) == 3
    for call in choosing:
        assert re.search(rf" --routers={plain} --seeds=2 .*--config.data.validation_share=0.1667 ", f"{call} ")
    assert f" --routers={plain},base,soft --seeds=7 --jobs={jobs} --workdir={folder} " in study
    assert study.endswith(f" --config.train.batch_size=4 --config.optimizer.learning_rate={best}")
    assert "validation_share" not in study
    if data == "wordnet":
        assert study.count("--config.train.batch_size=") == 1  # a flag takes the place of the script's


def test_the_routers_of_a_study_have_their_moe_layers_in_the_same_blocks():
    text = (ROOT / "launch" / "study_routers.sh").read_text()
    studies = re.findall(r"plain=(\w+)\n +config=(\S+)\n.*?routers=\((.*?)\n    \)", text, re.DOTALL)
    assert [plain for plain, *_ in studies] == ["vmoe", "smoe_top2"]
    for plain, file, listed in studies:
        names = [re.sub("#.*", "", line).strip() for line in listed.strip().splitlines()]
        assert len(names) > 15
        loaded = [files.load(plan.with_router(file, name)) for name in (plain, *names)]
        assert len({config_lib.parse_model(config.model).moe_layers for config in loaded}) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "study_routers: expected fashion_mnist or wordnet, and a folder; received nothing"),
        (("cifar",), {}, "study_routers: expected fashion_mnist or wordnet; received cifar"),
        (("wordnet", "--seeds=3"), {}, "study_routers: expected .* a folder; received wordnet --seeds=3"),
        (("wordnet",), {"SEEDS": "1"}, "study_routers: expected SEEDS of 2 or more .*; received 1 and 1"),
        (("wordnet",), {"PLAIN": "glam"}, "study_routers: expected ROUTERS to compare with PLAIN; received none"),
    ],
)
def test_a_study_that_cannot_be(tmp_path, arguments, environment, message):
    code, printed, errors, _ = run(tmp_path, "launch/study_routers.sh", *arguments, **environment)
    assert (code, printed) == (2, "")
    assert re.fullmatch(message, errors.strip())
