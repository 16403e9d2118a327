"""The script of TPU pods, with a stand-in for ``gcloud``."""

import pytest

from tests.launch.stand_ins import SLICE, TRAIN, run, stand_in


def test_a_dry_run_prints_every_command_and_runs_none(tmp_path):
    for name in ("gcloud", "git"):
        stand_in(tmp_path / "bin", name, "exit 1")
    code, printed, errors, calls = run(tmp_path, "launch/tpu_pod.sh", *SLICE, "--spot", "--delete", "--dry-run", *TRAIN)
    assert (code, errors, calls) == (0, "", [])
    quote = lambda text: "'" + text.replace("'", r"'\''") + "'"
    ssh = "+ gcloud compute tpus tpu-vm ssh pod --zone=us-west4-a --worker=all "
    flags = " ".join(quote(flag) for flag in TRAIN[1:])
    assert printed.splitlines() == [
        "+ gcloud compute tpus tpu-vm create pod --zone=us-west4-a --accelerator-type=v5litepod-16 "
        "--version=v2-alpha-tpuv5-lite --spot",
        "+ git archive --format=tar.gz --output=/tmp/vmoe_inform.XXXXXX HEAD",
        "+ gcloud compute tpus tpu-vm scp /tmp/vmoe_inform.XXXXXX pod:vmoe_inform.tar.gz --zone=us-west4-a "
        "--worker=all",
        ssh
        + quote(
            "--command=mountpoint -q /mnt/share || { sudo apt-get install -y -qq nfs-common && sudo mkdir -p "
            "/mnt/share && sudo mount -t nfs '10.0.0.2:/vol' /mnt/share && sudo chmod a+rwx /mnt/share; }"
        ),
        ssh
        + quote(
            "--command=if [ -e train.lock ] && ! flock --nonblock train.lock true; then echo training is running: "
            "nothing is installed; else mkdir -p vmoe_inform && find vmoe_inform -mindepth 1 -maxdepth 1 ! -name .venv "
            "-exec rm -rf {} + && tar -xzf vmoe_inform.tar.gz -C vmoe_inform && "
            "vmoe_inform/launch/tpu_worker.sh install; fi"
        ),
        ssh + quote(f"--command=vmoe_inform/launch/tpu_worker.sh start {flags}"),
        ssh + quote("--command=vmoe_inform/launch/tpu_worker.sh follow"),
        "+ gcloud compute tpus tpu-vm delete pod --zone=us-west4-a --quiet",
    ]


def test_a_run_in_a_bucket_needs_no_share(tmp_path):
    stand_in(tmp_path / "bin", "gcloud", "exit 1")
    flags = (*SLICE[:4], "--dry-run", "--", "--workdir=gs://bucket/run")
    code, printed, errors, _ = run(tmp_path, "launch/tpu_queue.sh", *flags)
    assert (code, errors, "/mnt/share" in printed) == (0, "", False)
    assert "tpu_worker.sh start '\\''--workdir=gs://bucket/run'\\''" in printed


# STATES holds what `describe` says, one line a call; CODES the exit codes of training, one line a start.
_GCLOUD = """
next() { head -n 1 "$1"; sed -i 1d "$1"; }
case "$*" in
*describe*) next "$STATES" ;;
*"tpu_worker.sh follow"*) exit "$(next "$CODES")" ;;
esac
"""


def run_pod(tmp_path, states: list[str], codes: list[int], *flags: str) -> tuple[int, list[str]]:
    """Exit code of the script, and what it did with the slice."""
    stand_in(tmp_path / "bin", "gcloud", _GCLOUD)
    stand_in(tmp_path / "bin", "git", "")
    (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    places = {"STATES": str(tmp_path / "states"), "CODES": str(tmp_path / "codes"), "RECONNECT_SECONDS": "0"}
    code, _, _, calls = run(tmp_path, "launch/tpu_pod.sh", *SLICE, *flags, *TRAIN, **places)
    verbs = {"tpu-vm create": "create", "tpu-vm delete": "delete", "tpu_worker.sh start": "train"}
    verbs |= {"tpu_worker.sh follow 5": "again"}
    return code, [verb for call in calls for words, verb in verbs.items() if words in call]


def test_a_preempted_slice_is_made_again(tmp_path):
    code, done = run_pod(tmp_path, ["READY", "PREEMPTED", "PREEMPTED", "PREEMPTED"], [255, 0])
    assert (code, done) == (0, ["train", "delete", "create", "train"])


def test_stopped_training_goes_on_on_the_same_slice_up_to_the_limit(tmp_path):
    code, done = run_pod(tmp_path, ["READY"] * 9, [75] * 9, "--restarts=2", "--delete")
    assert (code, done) == (75, ["train"] * 3 + ["delete"])


def test_a_lost_or_stuck_worker_is_a_reason_to_start_again(tmp_path):
    code, done = run_pod(tmp_path, ["READY"] * 9, [69, 124, 134, 0])
    assert (code, done) == (0, ["train"] * 4)


def test_a_lost_connection_starts_nothing_twice(tmp_path):
    code, done = run_pod(tmp_path, ["READY"] * 9, [255, 255, 0])
    assert (code, done) == (0, ["train", "again", "again"])


def test_what_was_stopped_by_its_user_is_not_started_again(tmp_path):
    code, done = run_pod(tmp_path, ["READY"] * 9, [130])
    assert (code, done) == (130, ["train"])


def test_what_cannot_be_installed_is_not_started(tmp_path):
    stand_in(tmp_path / "bin", "gcloud", 'case "$*" in *describe*) echo READY ;; *scp*) exit 1 ;; esac')
    stand_in(tmp_path / "bin", "git", "")
    code, _, _, calls = run(tmp_path, "launch/tpu_pod.sh", *SLICE, *TRAIN)
    assert code == 1
    assert not any("ssh" in call for call in calls)


def test_stop_reaches_all_workers(tmp_path):
    stand_in(tmp_path / "bin", "gcloud", "")
    code, _, _, calls = run(tmp_path, "launch/tpu_pod.sh", *SLICE[:2], "--stop")
    ssh = "gcloud compute tpus tpu-vm ssh pod --zone=us-west4-a --worker=all --command="
    assert (code, calls) == (0, [f"{ssh}vmoe_inform/launch/tpu_worker.sh stop"])


def test_bad_input_is_not_tried_again(tmp_path):
    code, done = run_pod(tmp_path, ["READY"] * 9, [2] * 9)
    assert (code, done) == (2, ["train"])


def test_a_slice_is_deleted_on_request_alone(tmp_path):
    stand_in(tmp_path / "bin", "gcloud", "")
    code, _, _, calls = run(tmp_path, "launch/tpu_pod.sh", *SLICE[:2], "--delete")
    assert (code, calls) == (0, ["gcloud compute tpus tpu-vm delete pod --zone=us-west4-a --quiet"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (SLICE, "expected -- and the flags of vmoe_inform.train, --stop or --delete"),
        ((*SLICE, "--stop", *TRAIN), "--stop: expected neither -- nor --delete"),
        (("--zone=z", "--delete"), "expected --name and --zone"),
        ((*SLICE[:3], *TRAIN), "expected --type and --version"),
        ((*SLICE[:4], *TRAIN), "expected --share, or --workdir=gs://BUCKET/NAME"),
        ((*SLICE, "--restarts=many", *TRAIN), "--restarts: expected an integer >= 0; received many"),
        ((*SLICE, "--restarts=08", *TRAIN), "--restarts: expected an integer >= 0; received 08"),
        ((*SLICE, "--spott", *TRAIN), "received --spott"),
        ((*SLICE, "--spot", "--reserved", *TRAIN), "expected one of --spot and --reserved"),
        ((*SLICE, "--slices=2", *TRAIN), "--slices: expected launch/tpu_queue.sh for several slices; received 2"),
    ],
)
def test_bad_flags_of_the_pod_script(tmp_path, flags, message):
    code, printed, errors, _ = run(tmp_path, "launch/tpu_pod.sh", "--dry-run", *flags)
    assert (code, printed) == (2, "")
    assert message in errors
