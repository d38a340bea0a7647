"""The memory of what was trained on: what it counts, and what becomes of its file."""

import numpy as np
import pytest

from captionstew.data.audio import AudioInfo
from captionstew.data.manifests.cuts import cut_row, open_cuts, write_cuts
from captionstew.data.manifests.trained_clips import (
    ENTRY,
    TrainedClips,
    copy_trained_clips,
    memory_of_encoder,
    read_trained_clips,
)
from captionstew.errors import UserError


@pytest.fixture
def clips(tmp_path):
    """clips({audio key: fingerprint or None}) -> their cuts."""
    info = AudioInfo(1.0, 16_000, 1, 16_000, "")

    def write(prints):
        rows = []
        for key, fingerprint in prints.items():
            labels = {} if fingerprint is None else {"fingerprint": fingerprint}
            rows.append(cut_row(key, f"/a/{key}.wav", info, ["a dog"], ["mine"], labels))
        path = tmp_path / f"cuts_{'-'.join(prints)}.jsonl"
        write_cuts(path, rows)
        return open_cuts(path)

    return write


def test_clips_count_by_key_or_by_audio(clips):
    memory = TrainedClips.of(clips({"a": "f1", "b": "f2", "c": None}))
    assert memory.count(clips({"x": "f8", "y": None})) == {
        "trained": 0, "by_key": 0, "by_audio": 0, "clips": 2, "complete": True,
    }  # fmt: skip
    evaluated = clips({"a": "f9", "other": "f2", "b": "f2", "c": None, "new": "f3"})
    assert memory.count(evaluated) == {
        "trained": 4, "by_key": 3, "by_audio": 2, "clips": 5, "complete": True,
    }  # fmt: skip
    assert memory.count(evaluated.select([4, 1]))["trained"] == 1


def test_without_fingerprints_nothing_is_said_about_the_audio(clips):
    silent = clips({"a": None, "b": None})
    known = clips({"a": "f1", "x": "f2"})
    assert TrainedClips.of(known).count(silent)["by_audio"] is None
    count = TrainedClips.of(silent).count(known)
    assert count["by_audio"] is None and count["trained"] == count["by_key"] == 1


def test_the_hashes_come_from_the_index_whoever_wrote_it(clips):
    written = clips({"a": "f1", "b": None})
    hashes = written.key_hashes.tolist(), written.fingerprint_hashes.tolist()
    written.path.with_name(written.path.name + ".index").unlink()
    built = open_cuts(written.path)
    assert (built.key_hashes.tolist(), built.fingerprint_hashes.tolist()) == hashes
    assert hashes[1][1] == 0 and len({*hashes[0], *hashes[1]}) == 4
    nothing = clips({})
    assert len(TrainedClips.of(nothing).keys) == 0
    assert TrainedClips.of(nothing).count(written)["trained"] == 0


def test_joined_memories(clips):
    first, second = (TrainedClips.of(clips(prints)) for prints in ({"a": "f1"}, {"b": "f2"}))
    both = first.joined(second)
    assert both.count(clips({"a": "f1", "b": None, "c": "f2", "d": None}))["trained"] == 3
    assert both.complete and (np.diff(both.keys.astype(object)) > 0).all()
    assert both.joined(both).sha256 == both.sha256
    partly = first.joined(None)
    assert not partly.complete and not second.joined(partly).complete
    assert partly.sha256 != first.sha256


def test_the_file_travels_and_its_absence_is_unknown(clips, tmp_path, capsys):
    memory = TrainedClips.of(clips({"a": "f1", "b": "f2"}))
    reference = memory.write(tmp_path)
    assert reference["file"] == f"trained_clips-{memory.sha256[:12]}.npz"
    assert memory.write(tmp_path) == reference
    found = read_trained_clips(tmp_path, reference)
    assert found.sha256 == memory.sha256 and found.complete

    (tmp_path / "copy").mkdir()
    assert read_trained_clips(tmp_path / "copy", reference) is None
    assert read_trained_clips(tmp_path, None) is None
    copy_trained_clips(tmp_path, reference, tmp_path / "copy")
    assert read_trained_clips(tmp_path / "copy", reference).sha256 == memory.sha256
    assert capsys.readouterr().out == ""
    copy_trained_clips(tmp_path / "nowhere", reference, tmp_path / "copy")
    assert "what was trained on is unknown" in capsys.readouterr().out

    path = tmp_path / reference["file"]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"{reference['file']}: damaged"):
        read_trained_clips(tmp_path, reference)
    other = TrainedClips.of(clips({"c": "f3"})).write(tmp_path)
    (tmp_path / other["file"]).rename(path)
    with pytest.raises(UserError, match="not the file that training wrote"):
        read_trained_clips(tmp_path, reference)


def test_encoders_that_nothing_was_trained_on(clips, tmp_path):
    cuts = clips({"a": "f1"})
    for description in ({"path": "wav2vec2", "pretraining": "speech"}, {"path": str(tmp_path)}):
        assert memory_of_encoder(description) is None
    untrained = memory_of_encoder({"path": "logmel", "pretraining": "none"})
    assert untrained.count(cuts) == {
        "trained": 0, "by_key": 0, "by_audio": 0, "clips": 1, "complete": True,
    }  # fmt: skip
    reference = TrainedClips.of(cuts).write(tmp_path)
    for path in (tmp_path, tmp_path / "pretrained.pt"):
        memory = memory_of_encoder({"path": str(path), ENTRY: reference})
        assert memory.count(cuts)["trained"] == 1
