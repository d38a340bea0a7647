"""The alignment protocol end to end: real lists, frozen weights, the same numbers with and without
a cache.
"""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from transformers import BartForConditionalGeneration

from captionstew.data.manifests.cuts import open_cuts

SMALL = """
    --max-duration 30 --num-workers 0 --average-period 1 --lr-batches 100 --warm-step 5
    --num-epochs 2
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def text_models(program, mini_data, tmp_path_factory):
    """Folder with roberta/ and bart/, small and trained for a moment."""
    folder = tmp_path_factory.mktemp("text")
    train = mini_data / "cuts_train.jsonl"
    program(
        "egs/eval_lit/local/make_text_models.py", "--manifest", train, "--output-dir", folder,
        "--vocab-size", 400, "--steps", 20,
    )  # fmt: skip
    return folder


def result_of(exp):
    (path,) = (exp / "results").glob("*.json")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_retrieval_with_and_without_cache(program, mini_data, text_models, tmp_path):
    numbers = {}
    for cache in ("frames", "none"):
        exp = tmp_path / cache
        places = [
            "--manifest-dir",
            mini_data,
            "--exp-dir",
            exp,
            "--cache",
            cache,
        ]
        if cache == "frames":
            places += ["--cache-dir", tmp_path / "cache"]
        program(
            "egs/eval_lit/retrieval/train.py", "--encoder", "logmel", *places, "--text-tower",
            text_models / "roberta", *SMALL,
        )  # fmt: skip
        program(
            "egs/eval_lit/retrieval/decode.py", "--exp-dir", exp, "--manifest",
            mini_data / "cuts_test.jsonl", "--cache", cache, "--cache-dir", tmp_path / "cache",
            "--num-workers", 0, "--duplicate-captions", "match",
        )  # fmt: skip
        result = result_of(exp)
        numbers[cache] = result["metrics"]
    assert result["task"] == f"lit_retrieval_{mini_data.name}"
    assert result["num_clips"] == 18 and result["settings"]["duplicate_captions"] == "match"
    assert (
        result["encoder"]["path"] == "logmel"
        and result["frozen_parameters"] == 0 < result["trained_parameters"]
    )
    assert (
        numbers["frames"].keys()
        == numbers["none"].keys()
        >= {"text_to_audio_map10", "audio_to_text_r10_interval"}
    )
    # The cache holds frames in half precision, so a rank may move by a place.
    assert numbers["frames"]["text_to_audio_r10"] == pytest.approx(
        numbers["none"]["text_to_audio_r10"], abs=0.12
    )


@pytest.mark.slow
def test_captioning_trains_cross_attention_and_bridge_alone(
    program, mini_data, text_models, tmp_path
):
    exp = tmp_path / "exp"
    places = ["--manifest-dir", mini_data, "--exp-dir", exp, "--cache-dir", tmp_path / "cache"]
    bart = text_models / "bart"
    program(
        "egs/eval_lit/captioning/train.py", "--encoder", "logmel", *places, "--text-decoder", bart,
        "--valid-captions", 4, "--max-caption-tokens", 40, *SMALL,
    )  # fmt: skip
    before = BartForConditionalGeneration.from_pretrained(bart).model.decoder.state_dict()
    content = torch.load(exp / "epoch-2.pt", weights_only=True)
    for kind in ("model", "model_avg"):
        after = {
            name.removeprefix("decoder.bart.model.decoder."): value.float()
            for name, value in content[kind].items()
            if name.startswith("decoder.bart.model.decoder.")
        }
        assert after.keys() == before.keys()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed and all(".encoder_attn" in name for name in changed)
        assert all(
            name in changed
            for name in before
            if ".encoder_attn." in name and name.endswith("weight")
        )

    program(
        "egs/eval_lit/captioning/decode.py", "--exp-dir", exp, "--manifest",
        mini_data / "cuts_test.jsonl", "--cache-dir", tmp_path / "cache", "--num-workers", 0,
        "--num-beams", 2,
    )  # fmt: skip
    result = result_of(exp)
    assert (
        result["task"] == f"lit_captioning_{mini_data.name}"
        and result["settings"]["decoding"] == "beam2"
    )
    bridge = content["model"]["bridge.weight"].numel() + content["model"]["bridge.bias"].numel()
    cross = sum(value.numel() for name, value in before.items() if ".encoder_attn" in name)
    assert result["trained_parameters"] == bridge + cross
    assert {"rouge_l", "rouge_l_hf", "bleu_4", "cider", "rouge_l_interval"} <= result[
        "metrics"
    ].keys()
    captions = (
        (exp / "results" / f"lit_captioning_{mini_data.name}-test-beam2.jsonl")
        .read_text()
        .splitlines()
    )
    assert len(captions) == 18

    also = exp / "results" / f"lit_captioning_{mini_data.name}-test-beam2.jsonl"
    again = (
        "egs/eval_lit/captioning/decode.py", "--exp-dir", exp, "--manifest",
        mini_data / "cuts_valid.jsonl", "--cache-dir", tmp_path / "cache", "--num-workers", 0,
        "--also", also,
    )  # fmt: skip
    refused = program(*again, "--num-beams", 1, check=False)
    assert f"--also {also}: its decoding is beam2, here it is greedy" in refused.stderr
    program(*again, "--num-beams", 2)
    both = json.loads(
        (exp / "results" / f"lit_captioning_{mini_data.name}-valid-beam2-joined.json").read_text()
    )
    alone = (
        also.with_name(f"lit_captioning_{mini_data.name}-valid-beam2.jsonl")
        .read_text()
        .splitlines()
    )
    assert both["num_clips"] == len(alone) + 18 and both["settings"]["also"] == str(also)
    itself = program(
        *again, "--num-beams", 2, "--manifest", mini_data / "cuts_test.jsonl", check=False
    )
    assert "is in --manifest, too" in itself.stderr


@pytest.mark.slow
def test_another_encoder_than_trained_on_is_refused(program, mini_data, text_models, tmp_path):
    exp = tmp_path / "exp"
    program(
        "egs/eval_lit/retrieval/train.py", "--encoder", "logmel", "--manifest-dir", mini_data,
        "--exp-dir", exp, "--cache", "none", "--text-tower", text_models / "roberta", *SMALL[:-1],
        1,
    )  # fmt: skip
    done = program(
        "egs/eval_lit/retrieval/decode.py", "--exp-dir", exp, "--manifest",
        mini_data / "cuts_test.jsonl", "--encoder", "random:mini", "--cache", "none", check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "adapted to another encoder" in done.stderr
    assert "Traceback" not in done.stderr


def test_random_decoder_is_refused(program, tmp_path):
    flags = ["--encoder", "logmel", "--exp-dir", tmp_path, "--text-decoder", "tiny"]
    done = program("egs/eval_lit/captioning/train.py", *flags, check=False)
    assert done.returncode == 2 and "random weights" in done.stderr


RELEASES = {
    "audiocaps": (49_838, 495, 975),
    "musiccaps": (2_663, 500, 500),
    "paraspeechcaps": (116_516, 500, 500),
}


def give_captions(folder):
    """The reference data has the files of ParaSpeechCaps's train_base without their captions."""
    with gzip.open(folder / "psc_train_base_ids.jsonl.gz", "rt") as lines:
        paths = [json.loads(line)["id"] for line in lines]
    table = {"relative_audio_path": paths, "text_description": [["A speaker."]] * len(paths)}
    table |= {"source": ["voxceleb"] * len(paths), "duration": [1.0] * len(paths)}
    table |= {name: pa.nulls(len(paths), pa.string()) for name in ("speakerid", "gender")}
    table["all_tags"] = pa.nulls(len(paths), pa.list_(pa.string()))
    pq.write_table(pa.table(table), folder / "train_base-00000-of-00001.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("corpus", RELEASES)
def test_both_protocols_on_the_real_lists(
    corpus, program, repository, shared_dir, text_models, tmp_path
):
    """Counts of the real lists; audio placed under the release's names for six clips of every
    split.
    """
    download, data = tmp_path / "download", tmp_path / corpus
    shutil.copytree(shared_dir / "metadata" / corpus, download)
    if corpus == "paraspeechcaps":
        give_captions(download)
    prepare = [
        repository / "egs/eval_lit/prepare.sh",
        "--corpus",
        corpus,
        "--corpus-dir",
        download,
        "--data-dir",
        data,
    ]
    subprocess.run([*map(str, prepare), "--stop-stage", "2"], check=True)
    rng = np.random.default_rng(0)
    for split, count in zip(("train", "valid", "test"), RELEASES[corpus]):
        table = pq.read_table(data / "tables" / f"{split}.parquet").to_pylist()
        keys = {row["audio_key"] for row in table}
        assert len(keys) == count
        heard = sorted(keys)[:6]
        for row in [row for row in table if row["audio_key"] in heard]:
            path = Path(row["audio_path"])
            path = (
                path if path.suffix in {".wav", ".flac"} else Path(f"{path}.wav")
            )  # one list has names without ending
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, rng.uniform(-0.1, 0.1, 8000).astype(np.float32), 16000)
    (data / ".done" / "1-table").unlink()  # the way to look for audio again
    subprocess.run([*map(str, prepare)], check=True)
    manifests = {
        split: open_cuts(data / f"cuts_{split}.jsonl") for split in ("train", "valid", "test")
    }
    assert [len(cuts) for cuts in manifests.values()] == [6, 6, 6]
    if corpus == "audiocaps":
        assert len(manifests["test"][0].supervisions[0].custom["captions"]) == 5
    coverage = json.loads((data / "report.json").read_text())["coverage"]["test"]["total"]
    assert coverage["found"] == 6 and coverage["listed"] == RELEASES[corpus][2]

    for protocol, side, text in (
        ("retrieval", "--text-tower", "roberta"),
        ("captioning", "--text-decoder", "bart"),
    ):
        exp = tmp_path / protocol
        places = ["--exp-dir", exp, "--cache-dir", tmp_path / "cache"]
        model = ["--encoder", "logmel", side, text_models / text, "--max-caption-tokens", 40]
        program(
            f"egs/eval_lit/{protocol}/train.py", *places, "--manifest-dir", data, *model, *SMALL
        )
        test = ["--manifest", data / "cuts_test.jsonl", "--num-workers", 0]
        program(f"egs/eval_lit/{protocol}/decode.py", *places, *test)
        result = result_of(exp)
        assert result["task"] == f"lit_{protocol}_{corpus}" and result["num_clips"] == 6
        assert result["settings"]["listed_clips"] == RELEASES[corpus][2]
        assert result["num_captions"] == sum(
            len(cut.supervisions[0].custom["captions"]) for cut in manifests["test"]
        )
