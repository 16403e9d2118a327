"""Published checkpoints by name: their settings, and files that are fetched once."""

import http.server
import pathlib
import shutil
import threading
from collections.abc import Iterator

import pytest

from tests import processes
from tests.interop import checkpoint_files as files
from vmoe_inform import checks
from vmoe_inform.interop import (
    checkpoint_import,
    references,
)


def test_published_names_bring_their_settings(arrays, tmp_path):
    name = "vmoe_s32_last2_ilsvrc2012_randaug_light1_ft_ilsvrc2012"
    path = files.save_shards(tmp_path / name, arrays)
    known = checkpoint_import.prepare(str(path))
    assert known.values["moe.num_selected_experts"].origin == "published config"
    assert known.model.moe.capacity_factor_evaluation == 1.5
    assert references.locate(str(path), print) == str(path)
    assert checkpoint_import.prepare(f"{path}.index", given={"capacity_factor": 2}).model.moe.group_size_sequences == 8
    with pytest.raises(checks.InputError, match="eee_s32_last2_ilsvrc2012: an ensemble"):
        references.locate("eee_s32_last2_ilsvrc2012", print)


@pytest.mark.parametrize("given", ["vmoe_s32_last2_ilsvrc2012_randaug_light", "gs://vmoe_checkpoints/vmoe_b16"])
def test_a_name_that_is_not_published_is_one_line(given, tmp_path, monkeypatch):
    with pytest.raises(checks.InputError, match="the name of a published V-MoE"):
        references.locate(given, print)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vmoe_s32_last2_ilsvrc2012_randaug_light.index").touch()
    assert references.locate("vmoe_s32_last2_ilsvrc2012_randaug_light", print).endswith("light")  # a file that is there


class _Bucket(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Iterator[pathlib.Path]:
    """A folder that is served as the public bucket."""
    folder = tmp_path / "served" / "vmoe_checkpoints"
    folder.mkdir(parents=True)
    handler = lambda *arguments: _Bucket(*arguments, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(references, "_SERVER", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield folder
        server.shutdown()


@pytest.mark.parametrize("address", ["", "gs://vmoe_checkpoints/"])
def test_published_files_are_fetched_once(address, bucket, arrays):
    name = "vmoe_s32_last2_ilsvrc2012_randaug_medium"
    files.save_shards(bucket / name, arrays)
    said: list[str] = []
    path = references.locate(address + name, said.append)
    assert checkpoint_import.prepare(path).plan.problems == []
    assert [line for line in said if line.startswith("fetching")] == [
        f"fetching {name}.data-0000{number}-of-00002" for number in range(2)
    ]
    shutil.rmtree(bucket)
    assert references.locate(name, said.append) == path
    assert len([line for line in said if line.startswith("fetching")]) == 2


def test_files_that_cannot_be_fetched_are_one_line_that_says_where_they_are(bucket, tmp_path):
    name = "vmoe_b16_imagenet21k_randaug_strong"
    with pytest.raises(checks.InputError, match=f"gsutil -m cp 'gs://vmoe_checkpoints/{name}") as caught:
        references.locate(name, lambda _: None)
    assert "HTTPError (File not found)" in str(caught.value)
    (bucket / f"{name}.index").write_bytes(b"\x82")
    with pytest.raises(checks.InputError, match="expected an index of google-research/vmoe as it was written"):
        references.locate(name, lambda _: None)
    assert sorted(path.name for path in (tmp_path / "cache/vmoe_inform/checkpoints").iterdir()) == [f"{name}.index"]


def test_the_page_lists_every_published_name():
    page = (processes.ROOT / "docs" / "interop.md").read_text()
    known = {name for name, reference in references.REFERENCES.items() if not reference.refused}
    assert {name for name in known if f"| `{name}` |" in page} == known
