"""The audio of evaluation lists is found as the corpora's own readers find it."""

import pytest

from captionstew.corpora.build.evaluation_audio import evaluation_audio
from captionstew.corpora.release import ReleaseError


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def found(*arguments):
    return [(row["audio_key"], row["files"][0]["path"]) for row in evaluation_audio(*arguments)]


def test_a_captioned_corpus_of_the_version_that_is_there(tmp_path):
    header = "audiocap_id,youtube_id,start_time,caption\n"
    write(
        tmp_path / "audiocaps/dataset2.0/test.csv",
        header + "1,-1nicOVtvkQ,30,A\n2,-1nicOVtvkQ,30,B\n3,aaaaaaaaaaa,0,C\n",
    )
    assert found(tmp_path, None, "audiocaps:test") == []
    here = write(tmp_path / "audiocaps/audio/-1nicOVtvkQ_30.flac")
    assert found(tmp_path, None, "audiocaps:test") == [("yt:-1nicOVtvkQ:30", here)]
    elsewhere = write(tmp_path / "sounds/audiocaps/Yaaaaaaaaaaa.wav")
    assert found(tmp_path, tmp_path / "sounds", "audiocaps:test") == [
        ("yt:aaaaaaaaaaa:0", elsewhere)
    ]


def test_a_labelled_corpus_by_the_splits_of_its_list(tmp_path):
    truth = tmp_path / "fsd50k" / "FSD50K.ground_truth"
    write(truth / "dev.csv", "fname,labels,mids,split\n1,Hum,/m/a,train\n2,Hum,/m/a,val\n")
    write(truth / "eval.csv", "fname,labels,mids\n3,Hum,/m/a\n4,Hum,/m/a\n")
    dev = [write(tmp_path / f"fsd50k/FSD50K.dev_audio/{n}.wav") for n in (1, 2)]
    test = write(tmp_path / "fsd50k/FSD50K.eval_audio/3.wav")
    with pytest.raises(ReleaseError, match="vocabulary.csv"):
        found(tmp_path, None, "fsd50k:eval")
    write(truth / "vocabulary.csv", "0,Hum,/m/a\n")
    assert found(tmp_path, None, "fsd50k:eval") == [("fs:3", test)]
    assert [path for _, path in found(tmp_path, None, "fsd50k:dev")] == dev
