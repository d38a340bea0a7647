"""The audio check: what counts as found, and where the rest is listed."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from captionstew.corpora.build.consolidate import consolidate
from captionstew.data.tables.audio_check import (
    check_audio,
    check_clip,
    coverage_as_markdown,
    fingerprints,
)
from captionstew.data.tables.caption_table import write_rows, write_table
from captionstew.data.tables.clip_table import FILE


def tone(path, seconds, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(round(seconds * rate)) * 0.1), rate)
    return str(path)


def file(path, source="mine", offset=0.0, duration=None):
    return {"source": source, "path": str(path), "offset": offset, "duration": duration}


def clip(*files, key="mine:x"):
    return {"audio_key": key, "files": list(files)}


def test_true_length_and_rate(tmp_path):
    path = tone(tmp_path / "a.wav", 1.5, 22_050)
    found = check_clip(clip(file(path, duration=10.0)))
    assert found["status"] == "found" and found["clip_duration"] == pytest.approx(1.5)
    assert (found["sampling_rate"], found["num_samples"], found["channels"]) == (22_050, 33_075, 1)
    assert check_clip(clip(file(path, duration=1.0)))["clip_duration"] == 1.0
    assert check_clip(clip(file(path, offset=0.5)))["clip_duration"] == pytest.approx(1.0)


def test_second_file_counts_when_the_first_is_missing_or_broken(tmp_path):
    (tmp_path / "broken.wav").write_text("not audio")
    path = tone(tmp_path / "good.wav", 1.0)
    assert (
        check_clip(clip(file(tmp_path / "none.wav"), file(tmp_path / "broken.wav"), file(path)))[
            "path"
        ]
        == path
    )
    both = check_clip(clip(file(tmp_path / "none.wav"), file(tmp_path / "broken.wav")))
    assert both["status"] == "broken" and "not readable" in both["reason"]
    assert check_clip(clip(file(tmp_path / "none.wav")))["status"] == "missing"


def test_lengths_that_cannot_be(tmp_path):
    path = tone(tmp_path / "long.wav", 61.0, 8_000)
    assert check_clip(clip(file(path)))["status"] == "too long"
    assert check_clip(clip(file(path)), max_duration=62.0)["status"] == "found"
    assert (
        check_clip(clip(file(path, offset=30.0, duration=30.0)))["status"] == "found"
    )  # a segment of a track
    assert "begins at 70.00 s" in check_clip(clip(file(path, offset=70.0)))["reason"]
    whole_video = check_clip(clip(file(path, duration=10.0), key="yt:r1nicOVtvkQ:30"))
    assert (
        whole_video["status"] == "broken"
        and "cut the clip out of the video" in whole_video["reason"]
    )


@pytest.mark.parametrize("name", ["{}", "Y{}", "A title [{}]", "A title-{}"])
@pytest.mark.parametrize(("second", "seconds"), [("7", 10.0), ("0", 10.0), ("15", 5.0)])
def test_a_clip_is_cut_out_of_a_whole_video(tmp_path, name, second, seconds):
    video = "-1nicOVtvkQ"
    path = tone(tmp_path / f"{name.format(video)}.wav", 20.0, 8_000)
    found = check_clip(clip(file(path, duration=10.0), key=f"yt:{video}:{second}"))
    assert found["status"] == "found" and found["offset"] == float(second)
    assert found["clip_duration"] == seconds and found["file_duration"] == 20.0


def test_what_is_no_whole_video_is_not_cut(tmp_path):
    video = "-1nicOVtvkQ"
    whole = tone(tmp_path / f"{video}.wav", 20.0, 8_000)
    late = check_clip(clip(file(whole, duration=10.0), key=f"yt:{video}:30"))
    assert "begins at 30.00 s" in late["reason"]
    unknown = check_clip(clip(file(whole, duration=10.0), key=f"yt:{video}:*"))
    assert "cut the clip out of the video" in unknown["reason"]
    longer = tone(tmp_path / f"{video}_5.wav", 20.0, 8_000)  # names a start: no whole video
    assert check_clip(clip(file(longer, duration=10.0), key=f"yt:{video}:5"))["status"] == "broken"
    short = tone(tmp_path / "other" / f"{video}.wav", 9.0, 8_000)
    assert check_clip(clip(file(short, duration=10.0), key=f"yt:{video}:30"))["offset"] == 0.0


@pytest.fixture
def clips(tmp_path, connection, make_starts):
    rows = []
    for number in range(60):
        path = tmp_path / "audio" / f"{number}.wav"
        if number % 5:
            tone(path, 0.3 + 0.01 * number)
        if number % 15 == 5:
            path.write_text("not audio")
        for source in ("a", "b") if number % 2 else ("a",):
            rows.append(
                {
                    "audio_key": f"mine:{number:02d}",
                    "caption": f"{source} {number}",
                    "source": source,
                    "audio_path": str(path),
                    "offset": 0.0,
                    "duration": None,
                    "split": "train",
                    "license": "free",
                }
            )
    write_table(tmp_path / "mine.parquet", rows)
    consolidate(
        connection, [tmp_path / "mine.parquet"], make_starts({}), tmp_path / "clips.parquet"
    )
    return tmp_path / "clips.parquet"


def test_coverage_table_and_lists(clips, tmp_path):
    table = check_audio(clips, tmp_path / "check", clips_per_share=7)
    assert table["total"] | {"hours": 0} == {
        "listed": 60,
        "found": 48,
        "missing": 8,
        "broken": 4,
        "too long": 0,
        "hours": 0,
    }
    assert table["sources"]["b"]["listed"] == 30 and table["sources"]["a"] == table["total"]
    hours = sum(0.3 + 0.01 * number for number in range(60) if number % 5) / 3600
    assert table["total"]["hours"] == pytest.approx(hours, abs=1e-4)
    checked = pq.read_table(tmp_path / "check" / "checked.parquet")
    assert checked.num_rows == 48 and checked["audio_key"].to_pylist() == sorted(
        checked["audio_key"].to_pylist()
    )
    missing = (tmp_path / "check" / "missing.txt").read_text().splitlines()
    assert len(missing) == 8 and missing[0].split("\t") == [
        "mine:00",
        str(tmp_path / "audio/0.wav"),
        "file does not exist",
    ]
    assert "not readable" in (tmp_path / "check" / "broken.txt").read_text()
    assert not list((tmp_path / "check").glob("shares-*"))
    assert "| a | 60 | 48 | 8 | 4 | 0 |" in coverage_as_markdown(table)


def test_interrupted_check_goes_on_and_gives_the_same_bytes(clips, tmp_path, monkeypatch):
    check_audio(clips, tmp_path / "whole", clips_per_share=1_000)
    check_audio(clips, tmp_path / "reference", clips_per_share=7)
    from captionstew.data.tables import audio_check as coverage

    done, work = [], coverage._check_share

    def dying(share):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(share.output.name)
        work(share)

    monkeypatch.setattr(coverage, "_check_share", dying)
    with pytest.raises(KeyboardInterrupt):
        check_audio(clips, tmp_path / "killed", clips_per_share=7)
    assert len(list((tmp_path / "killed").glob("shares-*/*.parquet"))) == 4
    monkeypatch.setattr(
        coverage, "_check_share", lambda share: (done.append(share.output.name), work(share))
    )
    check_audio(clips, tmp_path / "killed", clips_per_share=7)
    assert len(done) == len(set(done)) == 9  # nothing twice
    for name in ("checked.parquet", "missing.txt", "broken.txt", "coverage.json", "coverage.md"):
        reference = (tmp_path / "reference" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == reference, name
        assert (tmp_path / "whole" / name).read_bytes() == reference, name


def test_new_audio_is_seen_by_the_next_check(clips, tmp_path):
    assert check_audio(clips, tmp_path / "check")["total"]["missing"] == 8
    tone(tmp_path / "audio" / "0.wav", 1.0)
    assert check_audio(clips, tmp_path / "check")["total"]["missing"] == 7


def test_decoders_and_cancelling_channels_are_counted(tmp_path, connection, make_starts, encode):
    tone(tmp_path / "a.wav", 1.0)
    wave = 0.1 * np.sin(np.arange(16_000) * 0.1)
    soundfile.write(tmp_path / "b.wav", np.stack([wave, -wave], axis=1), 16_000)
    encode(tmp_path / "c.m4a", wave, 16_000, "aac")
    row = {"source": "s", "offset": 0.0, "duration": None, "split": "train", "license": "free"}
    names = ("a.wav", "b.wav", "c.m4a")
    rows = [
        row | {"audio_key": f"mine:{name}", "caption": name, "audio_path": str(tmp_path / name)}
        for name in names
    ]
    write_table(tmp_path / "mine.parquet", rows)
    clips = tmp_path / "clips.parquet"
    consolidate(connection, [tmp_path / "mine.parquet"], make_starts({}), clips)
    table = check_audio(clips, tmp_path / "check")
    assert table["decoders"] == {"ffmpeg": 1, "libsndfile": 2} and table["cancelling"] == 1
    page = (tmp_path / "check" / "coverage.md").read_text()
    assert "Clips by decoder: ffmpeg 1, libsndfile 2." in page and "silence: 1" in page
    key, path, reason = (tmp_path / "check" / "cancelling.txt").read_text().strip().split("\t")
    assert (key, path) == ("mine:b.wav", str(tmp_path / "b.wav")) and "silence" in reason
    checked = pq.read_table(tmp_path / "check" / "checked.parquet")
    assert checked["decoder"].to_pylist() == ["libsndfile", "libsndfile", "ffmpeg"]
    assert checked["cancelling"].to_pylist() == [False, True, False]


def test_the_sound_of_an_evaluation_clip_is_left_out_under_any_name(clips, tmp_path):
    copy = tmp_path / "evaluation" / "renamed.wav"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "audio" / "7.wav").read_bytes())
    (tmp_path / "evaluation" / "broken.wav").write_text("not audio")
    columns = [("list", pa.string()), ("audio_key", pa.string()), ("files", pa.list_(FILE))]
    table = tmp_path / "evaluation.parquet"
    listed = [
        {"list": "other:test", "audio_key": f"other:{x}", "files": [file(copy.parent / x)]}
        for x in ("renamed.wav", "broken.wav")
    ]
    write_rows(table, pa.schema(columns), listed)
    held_out = fingerprints(table, tmp_path / "evaluation")
    assert list(held_out.values()) == ["other:renamed.wav (other:test)"]
    result = check_audio(clips, tmp_path / "check", held_out=held_out)
    assert result["total"]["found"] == 47 and result["total"]["held out"] == 1
    assert result["sources"]["b"]["held out"] == 1
    kept = pq.read_table(tmp_path / "check" / "checked.parquet")["audio_key"].to_pylist()
    assert len(kept) == 47 and "mine:07" not in kept
    line = (tmp_path / "check" / "held_out.txt").read_text()
    assert line == (
        f"mine:07\t{tmp_path / 'audio/7.wav'}\tthe same sound as other:renamed.wav (other:test)\n"
    )


def test_missing_youtube_clips_are_listed_for_a_downloader(
    make_table, make_starts, tmp_path, connection
):
    A, B = "-1nicOVtvkQ", "Ybbbbbbbbbb"
    rows = [(f"yt:{A}:30", "a"), (f"yt:{B}:*", "b"), ("fs:1", "c")]
    table = make_table("audiocaps", rows, duration=9.5)
    clips = tmp_path / "clips.parquet"
    consolidate(connection, [table], make_starts({}), clips)
    check_audio(clips, tmp_path / "check")
    first = (tmp_path / "check" / "missing_youtube.tsv.gz").read_bytes()
    lines = [line.split("\t") for line in gzip.decompress(first).decode().splitlines()]
    assert [line[:2] for line in lines] == [
        [f"https://www.youtube.com/watch?v={A}", "*30-39.5"],
        [f"https://www.youtube.com/watch?v={B}", ""],
    ]
    missing = (tmp_path / "check" / "missing.txt").read_text().splitlines()
    assert {line[2] for line in lines} <= {line.split("\t")[1] for line in missing}
    check_audio(clips, tmp_path / "check")
    assert (tmp_path / "check" / "missing_youtube.tsv.gz").read_bytes() == first
