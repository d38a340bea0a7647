"""Tasks as data, the clips of a task, and what counts when a clip is broken."""

import json

import numpy as np
import pytest
import torch

from captionstew.data.audio import inspect_audio
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts
from captionstew.evaluation.probing.tasks import (
    ProbeTask,
    all_tasks,
    broken_clips,
    class_names,
    clip_split,
    events,
    num_missing,
    num_unknown_labels,
    parse_tasks,
    read_task_table,
    source_task,
    targets,
    task_clips,
)

SEVEN = {
    "fsd50k": ("map", 200), "vggsound": ("accuracy", 309), "voxceleb2": ("accuracy", 5994),
    "cremad": ("accuracy", 6), "magnatagatune": ("map", 50), "nsynth": ("accuracy", 11),
    "audioset_strong": ("psds1", 456),
}  # fmt: skip


@pytest.fixture
def table(repository):
    return read_task_table(repository / "egs" / "eval_probe" / "tasks.json")


@pytest.fixture
def manifest(write_sounds, tmp_path):
    """manifest([(source, labels), ...], name) -> IndexedCuts of short tones"""

    def write(rows, name="cuts_train.jsonl", folder=tmp_path):
        folder.mkdir(exist_ok=True)
        sounds = write_sounds(
            {f"{name}{number}.wav": (0.3, 200 + number) for number in range(len(rows))}
        )
        cuts = []
        for number, (source, labels) in enumerate(rows):
            path = sounds / f"{name}{number}.wav"
            cuts.append(
                make_cut(f"{name}{number}", path, inspect_audio(path), ["a tone"], [source], labels)
            )
        write_cuts(folder / name, cuts)
        return open_cuts(folder / name)

    return write


def test_the_table_holds_the_papers_seven_tasks(table):
    assert {name: (task.metric, task.num_classes) for name, task in table.items()} == SEVEN
    assert table["audioset_strong"].is_detection and not table["nsynth"].multi_label
    assert all(
        task.source == name and task.classes == "classes.json" for name, task in table.items()
    )


@pytest.mark.parametrize(
    "row, message",
    [
        ({"name": "a", "metric": "f1"}, "metric 'f1'"),
        ({"name": "a", "metric": "map", "multi_label": False}, "multi_label False"),
        ({"name": "a", "loss": "binary_cross_entropy"}, "does not go with accuracy"),
        ({"name": "a", "splits": {"test": "test"}}, "splits must name"),
        ({"name": "a", "colour": "red"}, "colour"),
    ],
)
def test_contradictory_rows_are_refused(tmp_path, row, message):
    (tmp_path / "tasks.json").write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=f"tasks.json.*{message}"):
        read_task_table(tmp_path / "tasks.json")


def test_names_and_shorthand(table):
    tasks = parse_tasks("cremad, ravdess:emotion,esc10,mine:labels,mine:events", table)
    assert tasks[0] is table["cremad"]
    assert [(task.name, task.source, task.field, task.metric) for task in tasks[1:]] == [
        ("ravdess_emotion", "ravdess", "emotion", "accuracy"),
        ("esc10", "esc10", "label", "accuracy"),
        ("mine_labels", "mine", "labels", "map"),
        ("mine_events", "mine", "events", "psds1"),
    ]
    with pytest.raises(ValueError, match="empty task name"):
        parse_tasks("esc10,,cremad", table)


def test_a_folder_of_its_own_takes_precedence(tmp_path, table):
    task = table["cremad"]
    assert task.manifest(tmp_path, "test") == tmp_path / "cuts_test.jsonl"
    (tmp_path / "cremad").mkdir()
    assert task.manifest(tmp_path, "valid") == tmp_path / "cremad" / "cuts_valid.jsonl"


def test_all_tasks_of_a_manifest(manifest, tmp_path, table, monkeypatch):
    monkeypatch.setattr("captionstew.evaluation.probing.tasks.MIN_TEST_CLIPS", 3)
    rows = [
        ("held", {"label": "ab"[number % 2]}) for number in range(3)
    ]  # nothing of it in validation
    rows += [("few", {"label": "a"})] * 2 + [("same", {"label": "a"})] * 3 + [("none", {})] * 3
    rows += [("good", {"label": "ab"[number % 2]}) for number in range(3)]
    rows += [("fsd50k", {"labels": ["Dog"]})]
    manifest(rows, "cuts_test.jsonl")
    manifest([row for row in rows if row[0] != "held"], "cuts_valid.jsonl")
    assert [task.name for task in all_tasks(tmp_path, table)] == ["fsd50k", "good"]
    manifest([("cremad", {"label": "ANG"})], "cuts_train.jsonl", tmp_path / "cremad")
    assert [task.name for task in all_tasks(tmp_path, table)] == ["cremad"]


def test_clips_of_a_task(manifest):
    cuts = manifest(
        [("a", {"label": "x"}), ("b", {"label": "y"}), ("a", {}), ("a", {"label": "z"})]
    )
    found = task_clips(cuts, source_task("a"))
    assert found.values == ["x", "z"] and [cut.id for cut in found.cuts] == found.ids
    kept = found.without({found.ids[0]: "broken"})
    assert kept.values == ["z"] and [cut.id for cut in kept.cuts] == kept.ids
    assert task_clips(cuts, ProbeTask("all")).values == ["x", "y", "z"]
    with pytest.raises(ValueError, match="no cut of source 'c' has a 'label'"):
        task_clips(cuts, source_task("c"))


def test_classes_come_from_the_list_or_from_training(manifest, tmp_path):
    found = task_clips(manifest([("a", {"label": "y"}), ("a", {"label": "x"})]), source_task("a"))
    assert class_names(found, source_task("a"), tmp_path) == ["x", "y"]
    listed = ProbeTask("a", "a", classes="classes.json")
    assert class_names(found, listed, tmp_path) == ["x", "y"]
    (tmp_path / "classes.json").write_text('["z", "y", "x"]')
    assert class_names(found, listed, tmp_path) == ["z", "y", "x"]
    for text, message in (
        ('["y"]', "lacks the class 'x'"),
        ('["x", "y", "x"]', "different class names"),
    ):
        (tmp_path / "classes.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            class_names(found, listed, tmp_path)


def test_targets_of_one_and_of_several_labels():
    one, several = ProbeTask("a"), ProbeTask("a", metric="map")
    assert targets(["y", "x", "new"], one, ["x", "y"]).tolist() == [1, 0, -1]
    assert targets([["y"], ["x", "y", "new"], "x"], several, ["x", "y"]).tolist() == [
        [0, 1],
        [1, 1],
        [1, 0],
    ]
    assert num_unknown_labels([["y"], ["x", "new"], "other"], ["x", "y"]) == 2
    values = [
        [[0.0, 1.5, "dog"], [1.0, 2.0, "new"]],
        [{"label": "cat", "onset": 0.25, "offset": 0.5}],
    ]
    assert events(values, ["cat", "dog"]) == [[(0.0, 1.5, 1)], [(0.25, 0.5, 0)]]
    assert num_unknown_labels(values, ["cat", "dog"]) == 1


def test_broken_clips_of_a_split(tmp_path):
    rows = [
        {
            "cut_id": "1",
            "audio_path": "1.wav",
            "reason": "empty",
            "custom": {"sources": ["a"], "label": "x"},
        },
        {
            "cut_id": "2",
            "audio_path": "2.wav",
            "reason": "empty",
            "custom": {"sources": ["b"], "label": "x"},
        },
        {"cut_id": "3", "audio_path": "3.wav", "reason": "empty", "custom": {"sources": ["a"]}},
    ]
    manifest, path = tmp_path / "cuts_test.jsonl", tmp_path / "broken_test.jsonl"
    assert broken_clips(manifest, source_task("a")) == [] and num_missing(manifest) == 0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [
        (clip.cut_id, clip.reason, clip.value) for clip in broken_clips(manifest, source_task("a"))
    ] == [("1", "empty", "x")]
    (tmp_path / "missing_test.txt").write_text("k1\tp\tgone\nk2\tp\tgone\n")
    assert num_missing(manifest) == 2
    path.write_text('{"cut_id": "1"}\n')
    with pytest.raises(ValueError, match="broken_test.jsonl: line 1"):
        broken_clips(manifest, source_task("a"))


def test_events_of_the_mini_corpus_form_are_read(manifest):
    found = task_clips(
        manifest([("e", {"events": [{"label": "dog", "onset": 0.0, "offset": 0.2}]})]),
        source_task("e", "events"),
    )
    assert class_names(found, source_task("e", "events"), found.cuts.path.parent) == ["dog"]
    assert (
        torch.equal(targets(["a"], ProbeTask("x"), ["a"]), torch.tensor([0]))
        and np.isfinite(found.cuts.durations).all()
    )


def test_whose_split_it_is_stands_beside_the_manifests(tmp_path):
    manifest = tmp_path / "cuts_test.jsonl"
    assert clip_split(manifest) == {}
    (tmp_path / "report.json").write_text('{"corpus": "cremad", "split": "paper"}')
    assert clip_split(manifest) == {"clip_split": "paper"}
