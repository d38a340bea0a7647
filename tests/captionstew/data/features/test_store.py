import pickle
import shutil

import numpy as np
import pytest
import torch

from captionstew.data.audio import BadAudio, read_audio
from captionstew.data.features.augment import Augmentation, augment_samples
from captionstew.data.features.fbank import Fbank, FbankConfig
from captionstew.data.features.store import FeatureStore, build_feature_store
from captionstew.data.manifests.cuts import audio_part, open_cuts, write_cuts


@pytest.fixture(scope="module")
def cuts(mini_manifest):
    return open_cuts(mini_manifest)


def build(root, cuts, **options):
    return build_feature_store(root, cuts, FbankConfig(), progress=False, **options)


def test_stored_features_are_the_features(cuts, tmp_path):
    store = build(tmp_path, cuts, speeds=(1.0, 0.9))
    fbank = Fbank(FbankConfig())
    assert len(store) == 2 * len(cuts) and store.speeds == (0.9, 1.0)
    for cut in [cuts[7], cuts[0], cuts[-1]]:
        samples = read_audio(*audio_part(cut))
        assert torch.equal(store.load(cut.id), fbank.extract(torch.from_numpy(samples)))
        slower = augment_samples(samples, Augmentation(speed=0.9))
        assert torch.equal(store.load(cut.id, 0.9), fbank.extract(torch.from_numpy(slower)))
    with pytest.raises(KeyError, match=r"at speed 1\.1"):
        store.load(cuts[0].id, 1.1)


def test_processes_give_the_same_bytes(cuts, tmp_path):
    one, two = build(tmp_path / "1", cuts), build(tmp_path / "2", cuts, num_jobs=2)
    assert one.folder.name == two.folder.name
    for name in ("features.bin", "index.jsonl", "store.json"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


def test_second_build_opens_the_first(cuts, tmp_path):
    store = build(tmp_path, cuts)
    stamp = (store.folder / "features.bin").stat().st_mtime_ns
    assert build(tmp_path, cuts).folder == store.folder
    assert (store.folder / "features.bin").stat().st_mtime_ns == stamp


def test_name_follows_settings_and_manifest(cuts, tmp_path):
    part = cuts.select(range(2))
    folders = {
        build(tmp_path, part).folder,
        build(tmp_path, part, speeds=(1.0, 1.1)).folder,
        build(tmp_path, part, dtype="float16").folder,
        build(tmp_path, cuts.select([1, 0])).folder,
        build_feature_store(tmp_path, part, FbankConfig(low=0.0), progress=False).folder,
    }
    assert len(folders) == 5


def test_interrupted_build_leaves_nothing(cuts, tmp_path, monkeypatch):
    from captionstew.data.features import store as feature_store

    def interrupted(job):
        raise KeyboardInterrupt

    monkeypatch.setattr(feature_store, "_extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, cuts)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_is_close_and_half_the_size(cuts, tmp_path):
    part = cuts.select(range(3))
    single, half = build(tmp_path, part), build(tmp_path, part, dtype="float16")
    loaded = half.load(cuts[1].id)
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded, single.load(cuts[1].id), atol=8e-3, rtol=0)
    sizes = [(store.folder / "features.bin").stat().st_size for store in (single, half)]
    assert sizes[0] == 2 * sizes[1]
    with pytest.raises(ValueError, match="bfloat16"):
        build(tmp_path, part, dtype="bfloat16")


def test_order_of_the_cuts_does_not_matter(cuts, tmp_path):
    forward, backward = (
        build(tmp_path, cuts.select([0, 1, 2])),
        build(tmp_path, cuts.select([2, 1, 0])),
    )
    for position in range(3):
        assert torch.equal(forward.load(cuts[position].id), backward.load(cuts[position].id))


def test_loaded_features_may_be_changed(cuts, tmp_path):
    store = build(tmp_path, cuts.select([0]))
    before = store.load(cuts[0].id).clone()
    store.load(cuts[0].id).zero_()
    assert torch.equal(store.load(cuts[0].id), before)


def test_workers_open_the_store_again(cuts, tmp_path):
    store = build(tmp_path, cuts.select([0]))
    copy = pickle.loads(pickle.dumps(store))
    assert torch.equal(copy.load(cuts[0].id), store.load(cuts[0].id))


def test_broken_clips_are_remembered(mini_corpus, mini_manifest, tmp_path, capsys):
    shutil.copytree(mini_corpus, tmp_path / "corpus")
    shutil.copy(mini_manifest, tmp_path)
    cuts = open_cuts(tmp_path / mini_manifest.name).select([0, 1])
    path = audio_part(cuts[1])[0]
    np.zeros(10).tofile(path)
    store = build(tmp_path / "features", cuts)
    assert "1 of 2 clips could not be read" in capsys.readouterr().out
    assert len(store.load(cuts[0].id)) > 0
    with pytest.raises(BadAudio) as error:
        FeatureStore(store.folder).load(cuts[1].id)
    assert error.value.path == path


def test_another_manifest_is_refused(cuts, tmp_path):
    store = build(tmp_path, cuts)
    store.require_cuts(cuts.select([3]))
    write_cuts(tmp_path / "other.jsonl", [cuts[0]])
    with pytest.raises(ValueError, match="another manifest"):
        store.require_cuts(open_cuts(tmp_path / "other.jsonl"))
