from collections import Counter

import pytest

from captionstew.data.captions import choose_caption, has_hidden_characters, normalise_caption
from captionstew.hashing import stable_hash


def test_whitespace_collapses_and_nothing_else_changes():
    assert normalise_caption("  A dog\t barks\r\n twice —  Élan!  ") == "A dog barks twice — Élan!"
    assert normalise_caption(" \n ") == ""


@pytest.mark.parametrize(
    ("caption", "clean"),
    [
        ("a\x00 dog\x07 barks\x1b[0m", "a dog barks[0m"),
        ("\ufeffa dog\u200b barks\u2060", "a dog barks"),
        ("\u202ea d\xadog\u202c", "a dog"),
        ("a \udc80dog", "a dog"),
        ("\u200b \x00", ""),
    ],
)
def test_hidden_characters_are_removed(caption, clean):
    assert normalise_caption(caption) == clean and has_hidden_characters(caption)


@pytest.mark.parametrize(
    "caption", ["می\u200cخواهم", "👩\u200d🚀 lands", "Élan\tvital\n", "犬が吠える"]
)
def test_what_is_seen_or_joins_is_kept(caption):
    assert normalise_caption(caption) == " ".join(caption.split())
    assert not has_hidden_characters(caption)


def test_choice_is_fixed_by_seed_epoch_and_clip():
    captions = ["a", "b", "c"]
    assert choose_caption(captions, "k", 1, 2) == choose_caption(captions, "k", 1, 2)
    assert choose_caption(["only"], "k", 1, 2) == "only"
    epochs = Counter(choose_caption(captions, "k", 1, epoch) for epoch in range(3000))
    keys = Counter(choose_caption(captions, f"k{number}", 1, 0) for number in range(3000))
    seeds = Counter(choose_caption(captions, "k", seed, 0) for seed in range(3000))
    for counts in (epochs, keys, seeds):
        assert set(counts) == set(captions) and min(counts.values()) > 900


def test_hash_is_the_same_on_every_machine():
    assert stable_hash(1, 2, "k") == 14183485924276235185
    assert stable_hash("ab", "c") != stable_hash("a", "bc")
