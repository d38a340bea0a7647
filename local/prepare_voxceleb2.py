"""VoxCeleb2: celebrities in YouTube videos; which of the 5,994 speakers of the dev part? Chung et al., 2018.

Release: https://mm.kaist.ac.kr/datasets/voxceleb (registration; annotations under CC BY 4.0), vox2_meta.csv and the
tree voxceleb2/dev/aac/ into CORPUS_DIR, a folder `voxceleb` wherever several corpora lie side by side. The audio is
.m4a, which libsndfile does not read: decode it once to .wav beside it, in the folder of the tree with

    find . -name '*.m4a' -exec sh -c 'ffmpeg -nostdin -loglevel error -i "$0" -ar 16000 "${0%.m4a}.wav"' {} ';'

There is no official identification split (the release's test speakers are others). Of every speaker whole videos,
3.4 % of the utterances and at least one video, are held out to test, and as many of the rest to validate, by seeded
hashes (`vox2_identification_split` in captionstew/data/label_lists.py; the leakage filter uses the same). The split is
that of the utterances listed, so the tree, or vox2_dev_utterances.txt in its place, has to be the whole one.
`custom.label` is the speaker.

    VoxCeleb2 ID,VGGFace2 ID,Gender,Set          vox2_meta.csv, a byte order mark and blanks around the fields
    id00012 ,n000012 ,m ,dev
    voxceleb2/dev/aac/id00012/21Uxsk56VDQ/00001.m4a

    python local/prepare_voxceleb2.py --corpus-dir download/voxceleb --output-dir data/voxceleb2
"""

import argparse
from collections.abc import Iterator

from captionstew.data.corpus_cli import AudioFolder, Report, find_release_file
from captionstew.data.identity import voxceleb_key
from captionstew.data.label_lists import (
    VOX2_VALID_SEED,
    VOXCELEB_HOME,
    read_vox2_speakers,
    read_vox2_utterances,
    vox2_identification_split,
)
from captionstew.data.labelled import LabelledClip, LabelledCorpus, run_labelled
from captionstew.data.programs import run_main


def read(args: argparse.Namespace, report: Report) -> tuple[list[str], Iterator[LabelledClip]]:
    table = read_vox2_speakers(find_release_file(args.corpus_dir, ["vox2_meta.csv"], VOXCELEB_HOME))
    speakers = sorted(speaker for speaker, (_, part) in table.items() if part == "dev")
    return speakers, clips(args, report, set(speakers))


def clips(args: argparse.Namespace, report: Report, speakers: set[str]) -> Iterator[LabelledClip]:
    listed = (args.corpus_dir / "vox2_dev_utterances.txt").is_file()
    utterances = list(read_vox2_utterances(args.corpus_dir if listed else args.audio_dir))
    test = vox2_identification_split(utterances)
    rest = (x for x in utterances if tuple(x.split("/")[:2]) not in test)
    valid = vox2_identification_split(rest, seed=VOX2_VALID_SEED)
    audio = AudioFolder(args.audio_dir)
    for utterance in utterances:
        speaker, video, _ = utterance.split("/")
        if speaker not in speakers:
            report.drop("speaker is not a dev speaker of vox2_meta.csv", utterance)
            continue
        split = "test" if (speaker, video) in test else "valid" if (speaker, video) in valid else "train"
        path = f"voxceleb2/dev/aac/{utterance}.m4a"
        labels = {"label": speaker, "video": video}
        yield LabelledClip(voxceleb_key(path), audio.path_in_tree(path), split, labels)


CORPUS = LabelledCorpus(name="voxceleb2", home=VOXCELEB_HOME, read=read)

if __name__ == "__main__":
    run_main(lambda: run_labelled(CORPUS, __doc__))
