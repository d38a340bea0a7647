"""Subsets: nested, whole clips, the right size, stratified, seeded."""

import pyarrow.parquet as pq
import pytest

from captionstew.corpora.build.consolidate import consolidate
from captionstew.corpora.build.subsets import add_subset_ranks, parse_size
from captionstew.hashing import key_hash


@pytest.fixture
def corpus(connection, make_table, make_starts, tmp_path):
    """9,000 captions: 6,000 clips of `big`, 2,500 captions of 500 clips of `five`, 500 clips in
    both.
    """
    tables = [
        make_table("big", [(f"fs:{i}", f"big {i}") for i in range(6_000)]),
        make_table("five", [(f"fs:{10_000 + i // 5}", f"five {i}") for i in range(2_500)]),
        make_table("both_a", [(f"fs:{20_000 + i}", "a") for i in range(250)]),
        make_table("both_b", [(f"fs:{20_000 + i}", "b") for i in range(250)]),
    ]
    consolidate(connection, tables, make_starts({}), tmp_path / "clips.parquet")
    return tmp_path / "clips.parquet"


def ranked(corpus, seed=0, weights=None):
    output = corpus.with_name("ranked.parquet")
    strata = add_subset_ranks(corpus, output, seed, weights)
    return pq.read_table(output).to_pylist(), strata


def take(clips, captions):
    return [clip for clip in clips if clip["subset_rank"] <= captions]


def count(clips, source):
    return sum(clip["num_captions"] for clip in clips if source in "+".join(clip["sources"]))


def test_strata_count_clips_and_captions(corpus):
    _, strata = ranked(corpus)
    assert strata == {
        "big": {"clips": 6_000, "captions": 6_000},
        "both_a+both_b": {"clips": 250, "captions": 500},
        "five": {"clips": 500, "captions": 2_500},
    }


@pytest.mark.parametrize("size", [90, 900, 4_500, 8_999])
def test_size_and_share(corpus, size):
    clips, _ = ranked(corpus)
    chosen = take(clips, size)
    total = sum(clip["num_captions"] for clip in chosen)
    assert size - 5 < total <= size
    for source, captions in (("big", 6_000), ("five", 2_500), ("both_a", 500)):
        assert abs(count(chosen, source) - size * captions / 9_000) <= 10


def test_nested_and_complete(corpus):
    clips, _ = ranked(corpus)
    keys = [
        {clip["audio_key"] for clip in take(clips, size)} for size in (400, 1_000, 4_000, 9_000)
    ]
    assert keys[0] < keys[1] < keys[2] < keys[3] and len(keys[3]) == 6_750
    assert max(clip["subset_rank"] for clip in clips) == 9_000


def test_drawn_by_the_hash_of_seed_and_key(corpus):
    clips, _ = ranked(corpus, seed=3)
    big = [
        clip["audio_key"]
        for clip in sorted(clips, key=lambda clip: clip["subset_rank"])
        if clip["sources"] == ["big"]
    ]
    assert big == sorted(big, key=lambda key: key_hash(key, 3))
    assert {c["audio_key"] for c in take(clips, 900)} != {
        c["audio_key"] for c in take(ranked(corpus)[0], 900)
    }


def test_weight_changes_the_share(corpus):
    clips, _ = ranked(corpus, weights={"five": 2.0})
    chosen = take(clips, 2_000)
    assert count(chosen, "five") / count(chosen, "big") == pytest.approx(
        2 * 2_500 / 6_000, rel=0.05
    )
    assert len(take(clips, 9_000)) == 6_750


@pytest.mark.parametrize(
    ("name", "size"), [("400k", 400_000), ("1M", 1_000_000), ("2500", 2_500), ("all", None)]
)
def test_names(name, size):
    assert parse_size(name) == size


@pytest.mark.parametrize("name", ["", "some", "1.5M", "0", "-3", "k"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match="neither a number of captions"):
        parse_size(name)
