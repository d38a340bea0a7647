import pyarrow.parquet as pq
import pytest

from captionstew.corpora.lit_splits import choose_clips, split_table
from captionstew.data.tables.caption_table import write_table


def row(key, split, caption="A dog barks."):
    return {
        "audio_key": f"yt:{key * 11}:0", "caption": caption, "source": "musiccaps",
        "audio_path": f"{key}.wav", "offset": 0.0, "duration": 10.0, "split": split,
        "license": "CC",
    }  # fmt: skip


def test_drawn_clips_are_disjoint_seeded_and_do_not_depend_on_the_order():
    keys = {"train": {f"t{n}" for n in range(30)}, "eval": {f"e{n}" for n in range(2000)}}
    chosen = choose_clips(keys, "musiccaps", seed=42)
    assert {split: len(clips) for split, clips in chosen.items()} == {
        "train": 30,
        "valid": 500,
        "test": 500,
    }
    assert not chosen["valid"] & chosen["test"]
    assert (
        choose_clips({"eval": keys["eval"], "train": keys["train"]}, "musiccaps", seed=42) == chosen
    )
    assert choose_clips(keys, "musiccaps", seed=43)["test"] != chosen["test"]


def test_a_clip_in_two_whole_splits_is_an_error():
    with pytest.raises(ValueError, match="clip-1 .* of train are held out as well"):
        choose_clips(
            {"train": {"clip-1", "clip-2"}, "val": {"clip-3"}, "test": {"clip-1"}},
            "audiocaps",
            seed=0,
        )


def test_split_table_keeps_all_captions_of_a_clip(tmp_path):
    rows = [row("a", "train"), row("v", "val"), row("t", "test", "One."), row("t", "test", "Two.")]
    write_table(tmp_path / "audiocaps.parquet", rows)
    counts = split_table(tmp_path / "audiocaps.parquet", "audiocaps", tmp_path / "out", seed=0)
    assert counts == {"train": 1, "valid": 1, "test": 1}
    assert pq.read_table(tmp_path / "out" / "test.parquet")["caption"].to_pylist() == [
        "One.",
        "Two.",
    ]


def test_an_empty_split_names_the_flag(tmp_path):
    write_table(tmp_path / "audiocaps.parquet", [row("a", "train"), row("t", "test")])
    with pytest.raises(ValueError, match="make it with --splits val"):
        split_table(tmp_path / "audiocaps.parquet", "audiocaps", tmp_path / "out", seed=0)
