import csv
import filecmp
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from captionstew.corpora.mini.make import DOMAINS, make_clip, make_mini_corpus
from captionstew.data.audio import inspect_audio
from captionstew.data.features.fbank import Fbank, FbankConfig
from captionstew.data.manifests.cuts import open_cuts


def test_same_arguments_give_the_same_files(mini_corpus, tmp_path):
    again = make_mini_corpus(tmp_path / "again", num_clips=60, num_jobs=2, progress=False)
    files = sorted(
        path.relative_to(mini_corpus) for path in mini_corpus.rglob("*") if path.is_file()
    )
    assert len(files) == 60 + 2 * len(DOMAINS)
    match, mismatch, errors = filecmp.cmpfiles(mini_corpus, again, map(str, files), shallow=False)
    assert len(match) == len(files) and not mismatch and not errors


def test_seeds_and_numbers_give_other_clips():
    clips = [make_clip(seed, "events", number) for seed, number in ((0, 0), (1, 0), (0, 1))]
    assert len({clip.samples.tobytes() for clip in clips}) == 3


@pytest.mark.parametrize("domain", DOMAINS)
def test_clips_are_audible_short_and_labelled(domain):
    for number in range(40):
        clip = make_clip(0, domain, number)
        assert clip.samples.dtype == np.float32 and 1.0 <= len(clip.samples) / 16000 <= 6.0
        assert 0.02 < np.abs(clip.samples).max() <= 1.0
        assert 1 <= len(clip.captions) <= 3 and len(set(clip.captions)) == len(clip.captions)
        assert all(caption[0].isupper() and "\n" not in caption for caption in clip.captions)
        assert clip.labels["domain"] and clip.labels["label"] in clip.labels["labels"].split(";")


def test_labels_serve_every_evaluation(mini_manifest):
    cuts = [cut.supervisions[0].custom for cut in open_cuts(mini_manifest)]
    assert Counter(custom["domain"] for custom in cuts) == {
        "sound_event": 20,
        "music": 20,
        "speech": 20,
    }
    assert Counter(custom["fold"] for custom in cuts) == dict.fromkeys(range(1, 6), 12)
    assert {custom["sources"][0] for custom in cuts} == {"events", "music", "voices"}
    by_domain = defaultdict(list)
    for custom in cuts:
        by_domain[custom["domain"]].append(custom)
    assert all(
        custom["instrument"] and custom["pitch"] and custom["tempo"]
        for custom in by_domain["music"]
    )
    assert all(
        custom["speaker"] and custom["emotion"] and custom["transcript"]
        for custom in by_domain["speech"]
    )
    assert all(custom["events"] for custom in by_domain["sound_event"])
    folds = defaultdict(set)
    for custom in by_domain["speech"]:
        folds[custom["speaker"]].add(custom["fold"])
    assert all(len(fold) == 1 for fold in folds.values()) and len(folds) > 5


def test_events_lie_where_the_labels_say(mini_corpus):
    with open(mini_corpus / "events" / "metadata.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        duration = inspect_audio(mini_corpus / "events" / row["file"]).duration
        for event in row["events"].split(";"):
            label, _, times = event.rpartition("@")
            onset, offset = map(float, times.split("-"))
            assert label in row["labels"].split(";") and 0 <= onset < offset <= duration + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("domain", "chance"), [("events", 1 / 12), ("music", 1 / 6), ("voices", 1 / 4)]
)
def test_classes_can_be_heard(domain, chance):
    """A linear classifier on log-mel statistics is far above chance on other clips: the labels are
    in the sound.
    """
    fbank = Fbank(FbankConfig())
    clips = [make_clip(0, domain, number) for number in range(360)]
    features = [fbank.extract(torch.from_numpy(clip.samples)) for clip in clips]
    values = torch.stack(
        [torch.cat([matrix.mean(0), matrix.std(0)]) for matrix in features]
    ).numpy()
    labels = [clip.labels["label"] for clip in clips]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    accuracy = classifier.fit(values[:240], labels[:240]).score(values[240:], labels[240:])
    assert accuracy > 3 * chance


def test_number_of_clips_must_balance(tmp_path):
    with pytest.raises(ValueError, match="multiple of 15"):
        make_mini_corpus(tmp_path, num_clips=100)
