"""launch/tpu_queue.sh with a stand-in for gcloud: requests wait in a queue, and are found again."""

import subprocess

import pytest

from tests.launch.stand_ins import ROOT, SLICE, TRAIN, run, stand_in

# STATES holds what `describe` says, one line a call: nothing is a request that does not exist, `fails` is a network
# that does. CODES holds the exit codes of training, one line a start.
_GCLOUD = """
next() { head -n 1 "$1"; sed -i 1d "$1"; }
case "$*" in
*describe*)
    said="$(next "$STATES")"
    case "$said" in
    '') echo 'ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource not found' >&2; exit 1 ;;
    fails) echo 'ERROR: no network' >&2; exit 1 ;;
    esac
    echo "$said"
    ;;
*"tpu_worker.sh follow"*) exit "$(next "$CODES")" ;;
esac
"""
_VERBS = {
    "queued-resources create": "create",
    "queued-resources delete": "delete",
    "tpu_worker.sh start": "train",
    "tpu_worker.sh follow 5": "again",
}


def run_queue(tmp_path, states: list[str], codes: list[int], *flags: str) -> tuple[int, list[str], str]:
    """Exit code of the script, what it did with the slices, and what it said."""
    stand_in(tmp_path / "bin", "gcloud", _GCLOUD)
    stand_in(tmp_path / "bin", "git", "")
    (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    places = {"STATES": str(tmp_path / "states"), "CODES": str(tmp_path / "codes")}
    places |= {"RECONNECT_SECONDS": "0", "POLL_SECONDS": "0"}
    code, printed, errors, calls = run(tmp_path, "launch/tpu_queue.sh", *SLICE, *flags, *TRAIN, **places)
    done = [verb for call in calls for words, verb in _VERBS.items() if words in call]
    return code, done, printed + errors


def test_a_request_waits_for_its_slices(tmp_path):
    states = ["", "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    code, done, said = run_queue(tmp_path, states, [0])
    assert (code, done) == (0, ["create", "train"])
    assert said.count("pod is WAITING_FOR_RESOURCES; this script may be ended and started again") == 1
    assert "tpu_queue: taking the slices of pod" in said


def test_a_request_that_is_there_is_not_made_again(tmp_path):
    assert run_queue(tmp_path, ["PROVISIONING", "fails", "ACTIVE"], [0])[:2] == (0, ["train"])


def test_preempted_slices_are_requested_again(tmp_path):
    states = ["ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDED", "", "ACTIVE"]
    code, done, _ = run_queue(tmp_path, states, [255, 0])
    assert (code, done) == (0, ["train", "delete", "create", "train"])


def test_a_lost_connection_starts_nothing_twice(tmp_path):
    """Also where the network that lost it does not say how the slices are."""
    code, done, _ = run_queue(tmp_path, ["ACTIVE", "fails", "ACTIVE"], [255, 255, 0])
    assert (code, done) == (0, ["train", "again", "again"])


def test_a_request_that_failed_is_not_made_again(tmp_path):
    code, done, said = run_queue(tmp_path, ["", "FAILED"], [])
    assert (code, done) == (2, ["create"])
    assert "the request pod failed; gcloud compute tpus queued-resources describe pod says why" in said


def test_without_an_answer_nothing_is_requested(tmp_path):
    code, done, said = run_queue(tmp_path, ["fails"] * 20, [])
    assert (code, done) == (2, [])
    assert said.endswith("tpu_queue: expected an answer about pod; received none 20 times\n")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "--node-id=pod"),
        (("--slices=2", "--spot"), "--node-count=2 --node-prefix=pod --spot"),
        (("--reserved",), "--node-id=pod --reserved"),
    ],
)
def test_requests(tmp_path, flags, expected):
    _, printed, _, _ = run(tmp_path, "launch/tpu_queue.sh", *SLICE, *flags, "--dry-run", *TRAIN)
    created, *others = [line for line in printed.splitlines() if line.startswith("+ gcloud")]
    assert created == (
        "+ gcloud compute tpus queued-resources create pod --zone=us-west4-a --accelerator-type=v5litepod-16 "
        f"--runtime-version=v2-alpha-tpuv5-lite {expected}"
    )
    assert len(others) == 5
    assert all("--zone=us-west4-a --node=all --worker=all" in line for line in others)


def test_slices_are_deleted_with_their_request(tmp_path):
    stand_in(tmp_path / "bin", "gcloud", "")
    code, _, _, calls = run(tmp_path, "launch/tpu_queue.sh", *SLICE[:2], "--delete")
    expected = "gcloud compute tpus queued-resources delete pod --zone=us-west4-a --force --quiet"
    assert (code, calls) == (0, [expected])


def test_a_bad_number_of_slices_is_one_line():
    flags = [*SLICE, "--slices=0", "--dry-run", *TRAIN]
    done = subprocess.run(["launch/tpu_queue.sh", *flags], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tpu_queue: --slices: expected an integer from 1 to 999; received 0\n"
