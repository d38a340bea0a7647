"""Features in shares: on a real Dask cluster, with a worker killed half-way, the bytes of one
process.
"""

import os
import signal
import threading
import time

import numpy as np
import pytest
import soundfile

from captionstew.data.audio import inspect_audio
from captionstew.data.features.fbank import FbankConfig
from captionstew.data.features.shards import build_feature_store_in_shares
from captionstew.data.features.store import build_feature_store
from captionstew.data.manifests.cuts import make_cut, open_cuts, write_cuts

FILES = ("features.bin", "index.jsonl", "store.json")


@pytest.fixture
def cuts(tmp_path):
    """150 clips, one of which is broken after the manifest was written."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 40_000)
    made = []
    for number in range(150):
        path = tmp_path / "audio" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, noise[number : 8_000 + 200 * number], 16_000)
        made.append(make_cut(f"mine:{number}", path, inspect_audio(path), ["a"], ["mine"]))
    write_cuts(tmp_path / "cuts.jsonl", made)
    (tmp_path / "audio" / "77.wav").write_text("not audio")
    return open_cuts(tmp_path / "cuts.jsonl")


def same(a, b):
    return all((a.folder / name).read_bytes() == (b.folder / name).read_bytes() for name in FILES)


def test_shares_in_one_process_equal_the_whole(cuts, tmp_path):
    few = cuts.select(range(70, 85))
    alone = build_feature_store(tmp_path / "alone", few, FbankConfig(), progress=False)
    shares = build_feature_store_in_shares(
        tmp_path / "shares", few, FbankConfig(), cuts_per_share=4
    )
    assert same(alone, shares) and len(shares) == 14
    assert [path.name for path in (tmp_path / "shares").iterdir()] == [shares.folder.name]
    again = build_feature_store_in_shares(tmp_path / "shares", few, FbankConfig(), cuts_per_share=4)
    assert again.folder == shares.folder


@pytest.mark.slow
def test_dask_cluster_with_a_worker_killed_half_way(cuts, tmp_path):
    distributed = pytest.importorskip("distributed")
    alone = build_feature_store(tmp_path / "alone", cuts, FbankConfig(), progress=False)
    killed = []
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        workers = list(client.run(os.getpid).values())

        def kill_one_half_way():
            while len(list((tmp_path / "shares").glob(".fbank-*/0*"))) < 5:
                time.sleep(0.005)
            os.kill(workers[0], signal.SIGKILL)
            killed.append(len(list((tmp_path / "shares").glob(".fbank-*/0*"))))

        killer = threading.Thread(target=kill_one_half_way, daemon=True)
        killer.start()
        store = build_feature_store_in_shares(
            tmp_path / "shares",
            cuts,
            FbankConfig(),
            cuts_per_share=1,
            dask_scheduler=cluster.scheduler_address,
        )
        killer.join(timeout=10)
        assert workers[0] not in client.run(os.getpid).values()
    assert killed and killed[0] < 150
    assert same(alone, store) and len(store) == 149
