import itertools
import os
import shutil

import numpy as np
import pytest
import torch

from captionstew.data.audio import BadAudio, read_audio
from captionstew.data.batches.captioned import MaskedFeatures
from captionstew.data.batches.dataset import CaptionDataset
from captionstew.data.batches.loader import make_loader
from captionstew.data.batches.sampling import EpochBatches
from captionstew.data.features.augment import AugmentConfig, SpecAugment
from captionstew.data.features.fbank import PADDING_VALUE, Fbank, FbankConfig
from captionstew.data.features.store import build_feature_store
from captionstew.data.manifests.cuts import audio_part, open_cuts

AUGMENT = AugmentConfig(max_gain_db=6.0, min_crop=0.8, max_delay=0.2, speeds=(0.9, 1.0, 1.1))


@pytest.fixture(scope="module")
def cuts(mini_manifest):
    return open_cuts(mini_manifest)


@pytest.fixture
def broken_cuts(mini_corpus, mini_manifest, tmp_path):
    """The same manifest beside a copy of the corpus in which two files are damaged and one is
    gone.
    """
    shutil.copytree(mini_corpus, tmp_path / "corpus")
    shutil.copy(mini_manifest, tmp_path)
    cuts = open_cuts(tmp_path / mini_manifest.name)
    paths = [audio_part(cuts[position])[0] for position in (3, 4, 5)]
    for path in paths[:2]:
        with open(path, "r+b") as file:
            file.truncate(3000)
    shutil.move(paths[2], tmp_path / "gone.flac")
    return cuts


def batches_of(cuts, epoch=1, num_workers=0, position=None, seed=0, **options):
    batches = EpochBatches(cuts, 30.0, seed=seed)
    if position is not None:
        batches.load_state_dict(position)
    batches.set_epoch(epoch)
    return list(make_loader(batches, CaptionDataset(seed=seed, **options), num_workers))


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[name]), name
        else:
            assert value == second[name], name


def test_batch_holds_what_it_says(cuts):
    batch = next(iter(batches_of(cuts)))
    count = len(batch["cut_ids"])
    assert count > 3 and batch["failed"] == [] and batch["epoch"] == 1
    assert batch["features"].shape == (count, int(batch["feature_lengths"].max()), 80)
    by_id = {cut.id: cut for cut in cuts}
    fbank = Fbank(FbankConfig())
    for index, cut_id in enumerate(batch["cut_ids"]):
        cut = by_id[cut_id]
        custom = cut.supervisions[0].custom
        samples = torch.from_numpy(read_audio(*audio_part(cut)))
        length = int(batch["feature_lengths"][index])
        assert torch.equal(batch["features"][index, :length], fbank.extract(samples))
        assert (batch["features"][index, length:] == PADDING_VALUE).all()
        assert batch["num_samples"][index] == len(samples)
        assert batch["durations"][index] == cut.duration
        assert batch["audio_keys"][index] == custom["audio_key"]
        assert batch["captions"][index] in custom["captions"] == batch["all_captions"][index]
        assert (
            batch["label"][index] == custom["label"] and batch["labels"][index] == custom["labels"]
        )
        assert batch["custom"][index] == custom


def test_waveforms(cuts):
    for batch in batches_of(cuts, waveforms=True):
        assert "features" not in batch
        assert batch["waveforms"].shape == (len(batch["cut_ids"]), int(batch["num_samples"].max()))
        for row, length in zip(batch["waveforms"], batch["num_samples"]):
            assert row[:length].any() and not row[length:].any()


def test_another_sampling_rate(cuts):
    wide = batches_of(cuts, waveforms=True, fbank=FbankConfig(sampling_rate=32000))
    for batch, narrow in zip(wide, batches_of(cuts, waveforms=True)):
        assert (batch["num_samples"] == 2 * narrow["num_samples"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("augment", [None, AUGMENT])
def test_batches_do_not_depend_on_workers(cuts, augment):
    expected = batches_of(cuts, epoch=2, augment=augment)
    for num_workers in (1, 2):
        got = batches_of(cuts, epoch=2, num_workers=num_workers, augment=augment)
        for first, second in itertools.zip_longest(expected, got):
            assert_same(first, second)


@pytest.mark.slow
def test_persistent_workers_follow_the_epoch(cuts):
    batches = EpochBatches(cuts, 30.0, seed=0)
    loader = make_loader(batches, CaptionDataset(seed=0, augment=AUGMENT), num_workers=2)
    for epoch in (1, 2, 1):
        batches.set_epoch(epoch)
        for first, second in itertools.zip_longest(
            loader, batches_of(cuts, epoch=epoch, augment=AUGMENT)
        ):
            assert_same(first, second)


def test_rows_are_read_by_the_workers(cuts, monkeypatch):
    expected = batches_of(cuts)
    main, read = os.getpid(), type(cuts).__getitem__

    def worker_reads(self, index):
        assert os.getpid() != main, "a row was read in the main process"
        return read(self, index)

    monkeypatch.setattr(type(cuts), "__getitem__", worker_reads)
    for first, second in itertools.zip_longest(expected, batches_of(cuts, num_workers=1)):
        assert_same(first, second)


def test_resume_gives_the_same_tensors_and_captions(cuts):
    whole = EpochBatches(cuts, 30.0, seed=0)
    whole.set_epoch(3)
    expected = list(make_loader(whole, CaptionDataset(augment=AUGMENT), 0))
    resumed = batches_of(cuts, epoch=3, position=whole.state_dict(2), augment=AUGMENT)
    for first, second in itertools.zip_longest(expected[2:], resumed):
        assert_same(first, second)


def test_epochs_draw_other_captions_and_augmentation(cuts):
    drawn = [
        dict(zip(batch["cut_ids"], batch["captions"]))
        for epoch in range(6)
        for batch in batches_of(cuts, epoch)
    ]
    captions = {}
    for choice in drawn:
        for cut_id, caption in choice.items():
            captions.setdefault(cut_id, set()).add(caption)
    several = [cut for cut in cuts if len(cut.supervisions[0].custom["captions"]) > 1]
    assert len(several) > 10 and all(len(captions[cut.id]) > 1 for cut in several[:3])


def test_loader_leaves_the_global_generator_alone(cuts):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    batches_of(cuts, num_workers=1)
    assert torch.equal(before, torch.get_rng_state())


def test_training_skips_and_lists_broken_clips(broken_cuts):
    bad = {broken_cuts[position].id for position in (3, 4, 5)}
    for options in ({}, {"waveforms": True}):
        batches = batches_of(broken_cuts, **options)
        failed = dict(item for batch in batches for item in batch["failed"])
        kept = [cut_id for batch in batches for cut_id in batch["cut_ids"]]
        assert set(failed) == bad and len(kept) == len(broken_cuts) - 3 and not bad & set(kept)
        assert sorted(reason.split(": ")[1].split(" (")[0] for reason in failed.values()) == [
            "damaged", "damaged", "file does not exist",
        ]  # fmt: skip
        for batch in batches:
            tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
            assert (
                {len(value) for value in tensors}
                == {len(batch["cut_ids"])}
                == {len(batch["captions"])}
            )


def test_evaluation_stops_at_a_broken_clip(broken_cuts):
    with pytest.raises(BadAudio, match="damaged"):
        batches_of(broken_cuts.select(range(5)), strict=True)
    with pytest.raises(BadAudio, match="file does not exist"):
        batches_of(broken_cuts.select([0, 1, 2, 5]), strict=True)


@pytest.mark.parametrize("waveforms", [False, True])
def test_batch_in_which_every_clip_is_broken(broken_cuts, waveforms):
    (batch,) = batches_of(broken_cuts.select([3, 4]), waveforms=waveforms)
    assert len(batch["failed"]) == 2 and batch["cut_ids"] == [] and batch["captions"] == []
    assert (
        len(batch["waveforms" if waveforms else "features"]) == 0 and len(batch["num_samples"]) == 0
    )


def test_part_of_a_longer_recording(cuts):
    cut = next(cut for cut in cuts if cut.duration > 2)
    part = cut.truncate(offset=0.5, duration=1.0, preserve_id=True)
    batch = CaptionDataset(waveforms=True)[[part]]
    whole = read_audio(audio_part(cut)[0])
    np.testing.assert_array_equal(batch["waveforms"][0].numpy(), whole[8000:24000])


def test_features_that_lhotse_stored_are_used(cuts, tmp_path):
    lhotse = pytest.importorskip("lhotse")
    some = lhotse.CutSet.from_cuts([cuts[position] for position in range(4)])
    config = lhotse.FbankConfig(num_filters=80)
    stored = some.compute_and_store_features(
        lhotse.Fbank(config), tmp_path / "features", storage_type=lhotse.NumpyFilesWriter
    )
    expected = CaptionDataset()[some]
    for cut in stored:
        cut.recording.sources[0].source = "/gone.flac"
    got = CaptionDataset()[stored]
    torch.testing.assert_close(got["features"], expected["features"], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="64 every"):
        CaptionDataset(FbankConfig(num_mel_bins=64))[stored]


def test_store_gives_the_same_batches(cuts, tmp_path):
    store = build_feature_store(tmp_path, cuts, FbankConfig(), progress=False)
    for first, second in itertools.zip_longest(batches_of(cuts), batches_of(cuts, store=store)):
        assert torch.equal(first["features"], second["features"])
        assert torch.equal(first["feature_lengths"], second["feature_lengths"])
        assert first["captions"] == second["captions"]
        assert (first["num_samples"] - second["num_samples"]).abs().max() <= 80


def test_store_with_augmentation_follows_the_same_draws(cuts, tmp_path):
    store = build_feature_store(
        tmp_path, cuts, FbankConfig(), speeds=AUGMENT.speeds, progress=False
    )
    direct, stored = (
        batches_of(cuts, augment=AUGMENT),
        batches_of(cuts, augment=AUGMENT, store=store),
    )
    for first, second in itertools.zip_longest(direct, stored):
        assert (first["feature_lengths"] - second["feature_lengths"]).abs().max() <= 2
        assert first["cut_ids"] == second["cut_ids"]


def test_stores_that_do_not_fit_are_refused(cuts, tmp_path):
    store = build_feature_store(tmp_path, cuts.select(range(3)), FbankConfig(), progress=False)
    with pytest.raises(ValueError, match="not at"):
        CaptionDataset(store=store, augment=AUGMENT)
    with pytest.raises(ValueError, match="waveforms"):
        CaptionDataset(store=store, waveforms=True)
    with pytest.raises(ValueError, match="this run uses"):
        CaptionDataset(FbankConfig(low=0.0), store=store)


def test_the_transform_of_a_batch_follows_seed_epoch_and_clips_alone(cuts):
    transform = MaskedFeatures(SpecAugment(probability=1.0))
    plain, masked = batches_of(cuts), batches_of(cuts, transform=transform)
    before = torch.random.get_rng_state()
    again = batches_of(cuts, transform=transform)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.randn(7)
    in_processes = batches_of(cuts, num_workers=2, transform=transform)
    for one, other, third, bare in zip(masked, again, in_processes, plain, strict=True):
        assert_same(one, other)
        assert_same(one, third)
        assert not torch.equal(one["features"], bare["features"])
    dataset = CaptionDataset(seed=0, transform=transform)
    rows = cuts.read([0, 1, 2])
    first, second = dataset[1, rows], dataset[2, rows]
    assert not torch.equal(first["features"], second["features"])
