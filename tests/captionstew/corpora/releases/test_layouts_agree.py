"""Miniatures of all eight releases: audio as unpacked and as downloaders write it is the same
corpus.
"""

import importlib.util
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq
import pytest

from captionstew.corpora import known
from captionstew.corpora.captioned import run
from captionstew.corpora.keys import name_stem


@pytest.fixture
def releases(tmp_path):
    """The miniatures of `test_no_leak`, without audio."""
    path = Path(__file__).with_name("test_no_leak.py")
    spec = importlib.util.spec_from_file_location("miniatures", path)
    miniatures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(miniatures)
    study = miniatures.Study(miniatures.FORMS["as released"], tmp_path)
    splits = {}
    for part in miniatures.PARTS:
        name, split = part.split(":")
        splits.setdefault(name, []).append(split)
    return study.corpora, splits


def read(releases, output, audio):
    """corpus -> {(key, source): path of the audio}."""
    corpora, splits = releases
    found = {}
    for name, wanted in splits.items():
        flags = ["--corpus-dir", corpora / name, "--output-dir", output, "--splits", *wanted]
        flags += ["--audio-dir", audio / name]
        table = run(known.load(name).CORPUS, None, [str(flag) for flag in flags])
        rows = pq.read_table(table).to_pylist()
        found[name] = {(row["audio_key"], row["source"]): row["audio_path"] for row in rows}
    return found


def as_downloaders_write(name, key, source, path):
    """Where another tool would have put the file."""
    space, _, rest = key.partition(":")
    video, stem = rest[:11], name_stem(path)
    if name == "paraspeechcaps" and space == "vox":
        return "_".join(rest.split(":")[1:]) + ".wav"
    if name == "paraspeechcaps" and space == "ears":
        return f"EARS/{rest.replace(':', '/')}.wav"
    return {
        "audiocaps": f"audio_32000Hz/train/Y{video}.opus",
        "musiccaps": f"[{video}]-[30-40].wav",
        "fusionaudio": f"{video}_30000_40000.wav",
        "clotho": f"CLOTHO_v2.1/clotho_audio_files/dev/{PurePosixPath(path).name}",
        "wavcaps_audioset": f"AudioSet_SL_flac/{stem}.flac",
        "wavcaps_bbc": f"mnt/fast/WavCaps/data/waveforms/BBC_Sound_Effects_flac/{stem}.flac",
        "wavcaps_freesound": f"mnt/fast/WavCaps/data/waveforms/FreeSound_flac/{stem}.flac",
        "wavcaps_soundbible": f"mnt/fast/WavCaps/data/waveforms/SoundBible_flac/{stem}.flac",
        "audiosetcaps_audioset": f"unbalanced/{video}_30_40.webm",
        "audiosetcaps_vggsound": f"vggsound/{video}_000200.mp4",
        "audiosetcaps_youtube8m": f"batch1/Vehicle (road)/{stem}.mp3",
        "jamendomaxcaps": f"83/track_{rest.split(':')[0].zfill(7)}.low.mp3",
        "paraspeechcaps": f"{stem}.mp3",
    }[name if name in ("paraspeechcaps", "clotho") else source]


def test_both_layouts_give_the_same_sounds(releases, tmp_path):
    unpacked, written = tmp_path / "unpacked", tmp_path / "written"
    expected = read(releases, tmp_path / "nothing", unpacked)
    sounds = {}
    for name, clips in expected.items():
        for (key, source), path in clips.items():
            target = written / name / as_downloaders_write(name, key, source, path)
            shared = name == "paraspeechcaps"  # both of its parts describe one recording
            sounds[name, key, source] = f"{name} {key} {'' if shared else source}"
            for file in (Path(path), target):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(sounds[name, key, source])
    for audio in (unpacked, written):
        found = {
            (name, key, source): Path(path).read_text()
            for name, clips in read(releases, tmp_path / audio.name, audio).items()
            for (key, source), path in clips.items()
        }
        assert found == sounds
