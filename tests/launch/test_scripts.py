"""The launch scripts: read by shellcheck, against their documentation, and what a wrong folder does."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.launch.stand_ins import ROOT, run

SCRIPTS = sorted([*(ROOT / "launch").glob("*.sh"), *(ROOT / "launch").glob("*.sbatch"), ROOT / ".ci/run"])


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck is not None
    assert len(SCRIPTS) >= 6
    done = subprocess.run([shellcheck, *map(str, SCRIPTS)], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("script", ["quickstart", "rehearse_imagenet"])
def test_a_folder_that_is_none_is_refused_before_anything_is_made(tmp_path, script):
    """Where bash would make a folder ``gs:``, or ``mkdir`` take ``--help`` for its own."""
    (tmp_path / "launch").mkdir()
    shutil.copy(ROOT / f"launch/{script}.sh", tmp_path / "launch")
    for arguments in (("--help",), ("gs://bucket/runs",), ("one", "two")):
        code, printed, errors, _ = run(tmp_path, str(tmp_path / f"launch/{script}.sh"), *arguments)
        assert (code, printed) == (2, "")
        assert errors.startswith(f"{script}: expected ")
        assert errors.endswith(f"; received {' '.join(arguments)}\n")
        assert [path.name for path in tmp_path.iterdir()] == ["launch"]


def test_the_documentation_names_what_is_there():
    text = (ROOT / "docs" / "launching.md").read_text()
    files = ("local_multiprocess.sh", "tpu_queue.sh", "tpu_pod.sh", "gke_jobset.yaml", "slurm.sbatch", "Dockerfile")
    assert all(f"launch/{name}" in text for name in files)
    assert set(re.findall(r"launch/([\w.]+\.(?:sh|yaml|sbatch))", text)) <= {
        p.name for p in (ROOT / "launch").iterdir()
    }
    (block,) = [block for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) if "tpu_queue.sh --name" in block]
    done = subprocess.run(["bash", "-c", block], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("+ gcloud") == 7
