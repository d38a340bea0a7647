"""Small things that many tests need: an encoder of a few thousand weights, captions, a tokenizer,
caption tables, the mini corpus."""

import av
import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

from captionstew.corpora.mini.make import make_mini_corpus
from captionstew.corpora.own.read import read_folder
from captionstew.data.manifests.cuts import write_cuts
from captionstew.data.tables.caption_table import write_rows, write_table
from captionstew.data.tables.database import connect
from captionstew.data.tokenizer import SentencePieceTokenizer, train_sentencepiece
from captionstew.models.contrastive import build_contrastive
from zipformer import ZipformerConfig

CAPTIONS = [
    f"{adverb} a {animal} {verb} {place}"
    for adverb in ("suddenly", "softly", "again and again", "once")
    for animal, verb in (("dog", "barks"), ("bird", "sings"), ("cow", "moos"), ("cat", "meows"))
    for place in ("near the river", "in an empty hall", "while rain falls")
]


@pytest.fixture(scope="session")
def tiny_config():
    """Two stacks of 16 and 32 channels."""
    return ZipformerConfig(
        downsampling_factor=(1, 2),
        encoder_dim=(16, 32),
        num_encoder_layers=1,
        encoder_unmasked_dim=(16, 24),
        query_head_dim=8,
        value_head_dim=4,
        num_heads=2,
        feedforward_dim=(32, 48),
        cnn_module_kernel=7,
        pos_dim=12,
        frontend_channels=(2, 4, 8),
    )


@pytest.fixture(scope="session")
def captions():
    """48 different captions."""
    return CAPTIONS


@pytest.fixture(scope="session")
def tokenizer():
    return SentencePieceTokenizer(train_sentencepiece(CAPTIONS, 120))


@pytest.fixture(scope="session")
def tiny_task_config(tiny_config, tokenizer):
    """What a checkpoint's config says of a tiny contrastive model."""
    return {
        "task": "contrastive",
        "preset": "tiny",
        "encoder": tiny_config.to_dict(),
        "fbank": {},
        "text_tower": "tiny",
        "embedding_dim": 16,
        "temperature": 0.07,
        "max_caption_tokens": 32,
        "tokenizer": tokenizer.to_dict(),
    }


@pytest.fixture
def tiny_model(tiny_task_config, tokenizer):
    torch.manual_seed(0)
    return build_contrastive(tiny_task_config, tokenizer)


@pytest.fixture(scope="session")
def make_batch(captions):
    """make_batch(first clip, clips) -> a batch as the loader gives it; every clip has its own
    loudness and length.
    """

    def make(first, clips, longest=60):
        generator = torch.Generator().manual_seed(first)
        lengths = torch.tensor([longest - 7 * (row % 3) for row in range(clips)])
        features = torch.randn(clips, longest, 80, generator=generator) * 3 - 6
        for row, length in zip(features, lengths):
            row[length:] = -15.942385
        return {
            "features": features,
            "feature_lengths": lengths,
            "captions": [captions[(first + row) % len(captions)] for row in range(clips)],
            "cut_ids": [f"clip-{first + row}" for row in range(clips)],
            "durations": lengths.double() / 100,
            "failed": [],
        }

    return make


@pytest.fixture
def write_sounds(tmp_path):
    """write_sounds({name: (seconds, hertz)}) -> folder with 16 kHz WAV files of tones in noise."""

    def write(sounds, folder=tmp_path / "audio"):
        folder.mkdir(exist_ok=True)
        for name, (seconds, hertz) in sounds.items():
            generator = np.random.default_rng(int(hertz))
            time = np.arange(round(seconds * 16000)) / 16000
            samples = 0.3 * np.sin(2 * np.pi * hertz * time) + 0.01 * generator.normal(
                size=len(time)
            )
            soundfile.write(folder / name, samples.astype(np.float32), 16000, subtype="FLOAT")
        return folder

    return write


@pytest.fixture(scope="session")
def encode():
    """encode(path, samples (channels, N), rate, codec) -> path, written by FFmpeg."""

    def write(path, samples, rate, codec, **options):
        samples = np.atleast_2d(samples).astype(np.float32)
        layout = {1: "mono", 2: "stereo"}[len(samples)]
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(path, "w", options=options) as container:
            stream = container.add_stream(codec, rate=rate, layout=layout)
            stream.bit_rate = 128_000
            stream.codec_context.options = {"strict": "-2"}  # Vorbis' encoder is experimental
            stream.codec_context.open()
            convert = av.AudioResampler(stream.codec_context.format.name, layout, rate)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate = rate
            queue = av.AudioFifo()
            for converted in convert.resample(frame):
                converted.pts = None
                queue.write(converted)
            done = 0
            size = stream.codec_context.frame_size or 1024
            while (part := queue.read(size, partial=True)) is not None:
                part.pts, done = done, done + part.samples
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture
def connection(tmp_path):
    with connect(tmp_path / "scratch", memory_gb=1, threads=2) as connection:
        yield connection


@pytest.fixture
def make_table(tmp_path):
    """make_table("audiocaps", [(audio_key, caption), ...], split="train") -> path of the caption
    table.
    """

    def make(name, rows, *, source=None, split="train", license="free", duration=10.0, path=None):
        complete = (
            {
                "audio_key": key,
                "caption": caption,
                "source": source or name,
                "audio_path": f"/audio/{name}/{key}.wav" if path is None else path,
                "offset": 0.0,
                "duration": duration,
                "split": split,
                "license": license,
            }
            for key, caption in rows
        )
        table = tmp_path / "tables" / f"{name}.parquet"
        write_table(table, complete)
        return table

    return make


@pytest.fixture
def make_keys(tmp_path):
    """make_keys([("audiocaps", "test", "yt:..."), ...]) -> evaluation_keys.parquet."""

    def make(keys):
        names = ("evaluation_set", "split", "key")
        schema = pa.schema([(name, pa.string()) for name in names])
        path = tmp_path / "evaluation_keys.parquet"
        write_rows(path, schema, (dict(zip(names, key, strict=True)) for key in keys))
        return path

    return make


@pytest.fixture
def make_starts(tmp_path):
    """make_starts({video: start}) -> audioset_starts.parquet."""

    def make(starts):
        schema = pa.schema([("video", pa.string()), ("start", pa.int64())])
        path = tmp_path / "audioset_starts.parquet"
        write_rows(
            path, schema, ({"video": video, "start": start} for video, start in starts.items())
        )
        return path

    return make


@pytest.fixture(scope="session")
def mini_corpus(tmp_path_factory):
    """Folder of the mini corpus with 60 clips; do not change it."""
    return make_mini_corpus(
        tmp_path_factory.mktemp("mini") / "corpus", num_clips=60, progress=False
    )


@pytest.fixture(scope="session")
def mini_manifest(mini_corpus):
    """Manifest of the 60 clips, beside the corpus."""
    cuts, _ = read_folder(mini_corpus, progress=False)
    write_cuts(mini_corpus.parent / "cuts.jsonl", cuts)
    return mini_corpus.parent / "cuts.jsonl"
