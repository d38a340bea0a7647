#!/usr/bin/env python3
"""How long `captionstew search` takes to answer over many clips, after loading.

    python benchmarks/search.py                # random weights, 10,000 random vectors
    python benchmarks/search.py --checkpoint exp/contrastive/pretrained.pt --clips 100000

Prints milliseconds per query: from the text to the list of files, the text tower and the comparison
with every clip.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from captionstew.data.tokenizer import SentencePieceTokenizer, train_sentencepiece
from captionstew.inference.retriever import Retriever, load_retriever
from captionstew.inference.search_index import SearchIndex, load_index
from captionstew.models.contrastive import ContrastiveModel
from captionstew.models.encoders.zipformer import frozen_part
from captionstew.models.text_tower import build_text_tower
from zipformer import Zipformer, ZipformerConfig

QUERIES = [
    "a dog barks in the distance",
    "slow piano music with rain",
    "a woman speaks calmly",
    "an engine starts",
]


def random_retriever(text_tower: str, embedding_dim: int) -> Retriever:
    """A model of the given size with random weights."""
    words = [f"{query} {number}" for query in QUERIES for number in range(50)]
    tokenizer = SentencePieceTokenizer(train_sentencepiece(words, 120))
    encoder = Zipformer(ZipformerConfig.preset("mini"))
    tower = build_text_tower(text_tower, tokenizer.vocab_size, tokenizer.pad_id)
    model = ContrastiveModel(encoder, tower, embedding_dim).eval()
    frozen = frozen_part(encoder, {"preset": "mini"}, Path(__file__))
    return Retriever(model, frozen.freeze(), tokenizer, embedding_dim, 128)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="contrastive checkpoint (default: random weights)"
    )
    parser.add_argument(
        "--text-tower", default="bert-base", help="of the random weights (default: bert-base)"
    )
    parser.add_argument(
        "--embedding-dim", type=int, default=512, help="of the random weights (default: 512)"
    )
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--num-threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    retriever = (
        load_retriever(options.checkpoint)
        if options.checkpoint
        else random_retriever(options.text_tower, options.embedding_dim)
    )
    vectors = (
        np.random.default_rng(0).normal(size=(options.clips, retriever.dim)).astype(np.float32)
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    files = tuple(f"recordings/{number:08d}.wav" for number in range(options.clips))
    stamps = np.zeros((options.clips, 2), dtype=np.int64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.npz"
        SearchIndex(files, vectors, stamps, retriever.encoder.description["sha256"]).save(path)
        start = time.perf_counter()
        index = load_index(path)
        print(f"index of {options.clips} clips: {path.stat().st_size / 1e6:.1f} MB, ", end="")
        print(f"read in {1000 * (time.perf_counter() - start):.0f} ms")
    times, processor = [], []
    for number in range(options.queries):
        start, start_processor = time.perf_counter(), time.process_time()
        retriever.search(index, QUERIES[number % len(QUERIES)], k=10)
        times.append(1000 * (time.perf_counter() - start))
        processor.append(1000 * (time.process_time() - start_processor))
    print(
        f"query: first {times[0]:.1f} ms, median {statistics.median(times):.1f} ms, slowest"
        f" {max(times):.1f} ms, processor time {statistics.median(processor):.1f} ms"
        f" ({options.queries} queries, {options.num_threads} threads)"
    )


if __name__ == "__main__":
    main()
