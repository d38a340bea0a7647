"""Fetching from a server that cuts connections, is busy, has nothing, or sends something else."""

import hashlib
import http.server
import json
import random
import threading
from pathlib import Path

import pytest
import urllib3

from captionstew.corpora import fetch as fetching
from captionstew.corpora import known
from captionstew.corpora.fetch import (
    AUDIO,
    METADATA,
    FetchError,
    File,
    Hub,
    Steps,
    Zenodo,
    download,
    fetch,
)

CONTENT = b"youtube_id,caption\n" + bytes(range(32, 127)) * 3_000
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Server(http.server.BaseHTTPRequestHandler):
    """/cut: every connection ends after 50,000 bytes; /busy: twice 429; /list, /page, /gone."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str | None]] = []
    busy = 2

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path, part = self.path, self.headers.get("Range")
        type(self).asked.append((path, part))
        if path == "/gone":
            return self.answer(404, b"gone")
        if path == "/busy" and type(self).busy > 0:
            type(self).busy -= 1
            return self.answer(429, b"slowly", {"Retry-After": "0"})
        if path == "/page":
            return self.answer(200, b"<!DOCTYPE html><html>log in</html>")
        if path.startswith("/records/"):
            link = f"http://{self.headers['Host']}/file"
            files = [
                {
                    "key": f"{name}.csv",
                    "size": len(CONTENT),
                    "checksum": MD5,
                    "links": {"self": link},
                }
                for name in ("captions_a", "captions_b", "captions_c", "other")
            ]
            return self.answer(200, json.dumps({"files": files}).encode())
        start = int(part.removeprefix("bytes=").rstrip("-")) if part else 0
        if start and self.headers.get("If-Range") != '"1"':
            start = 0
        headers = {"ETag": '"1"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        body = CONTENT[start:]
        keep = 50_000 if path == "/cut" else len(body)
        self.answer(206 if start else 200, body, headers, keep)

    def answer(self, status, body, headers=None, keep=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:keep])
        if keep is not None and keep < len(body):
            self.close_connection = True


@pytest.fixture
def server():
    Server.asked, Server.busy = [], 2
    http_server = http.server.ThreadingHTTPServer(("localhost", 0), Server)
    thread = threading.Thread(target=http_server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{http_server.server_port}"
    http_server.shutdown()
    http_server.server_close()


def test_cut_connections_are_gone_on_with(server, tmp_path):
    file = File(f"{server}/cut", "deep/list.csv", size=len(CONTENT), checksum=SHA)
    path = download(file, tmp_path)
    assert path == tmp_path / "deep/list.csv" and path.read_bytes() == CONTENT
    assert [part for _, part in Server.asked] == [
        None, *(f"bytes={n}-" for n in range(50_000, len(CONTENT), 50_000))
    ]  # fmt: skip
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "deep", path]
    Server.asked.clear()
    assert download(file, tmp_path) == path and Server.asked == []  # it is there


def test_a_killed_download_goes_on_unless_the_file_is_another_one(server, tmp_path):
    file = File(f"{server}/file", "list.csv", checksum=SHA)
    partial = tmp_path / "list.csv.partial"
    for version, part in (('"1"', "bytes=1000-"), ('"0"', "bytes=1000-"), ("", None)):
        partial.write_bytes(CONTENT[:1000] if version == '"1"' else b"of another version" * 100)
        partial.write_bytes(partial.read_bytes()[:1000])
        (tmp_path / "list.csv.partial.etag").write_text(version)
        Server.asked.clear()
        assert download(file, tmp_path).read_bytes() == CONTENT
        assert Server.asked == [("/file", part)]
        (tmp_path / "list.csv").unlink()


def test_killed_at_twenty_moments_the_file_is_the_same(server, tmp_path, monkeypatch):
    draw, read = random.Random(0), urllib3.HTTPResponse.read1
    file = File(f"{server}/file", "list.csv", size=len(CONTENT), checksum=SHA)
    for moment in range(20):
        left = draw.randrange(len(CONTENT) // 15)

        def dying(self, amount, left=left):
            dying.read = getattr(dying, "read", 0) + 5_000
            if dying.read > left:
                raise KeyboardInterrupt
            return read(self, 5_000)

        monkeypatch.setattr(urllib3.HTTPResponse, "read1", dying)
        with pytest.raises(KeyboardInterrupt):
            download(file, tmp_path)
        assert not (tmp_path / "list.csv").exists(), moment
    monkeypatch.setattr(urllib3.HTTPResponse, "read1", read)
    assert download(file, tmp_path).read_bytes() == CONTENT
    assert Server.asked[-1][1] is not None  # it went on


def test_a_trial_takes_the_first_files_of_the_hub(tmp_path, monkeypatch):
    calls = []
    names = [f"data/{n:03d}.parquet" for n in range(500)] + ["README.md"]
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *a, **k: names)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: calls.append(k))
    fetch((Hub("a/b", ("data/*.parquet",)),), tmp_path, (METADATA,), limit=100)
    assert calls[0]["allow_patterns"] == names[:100]


def test_a_data_set_that_is_not_there_is_an_error_of_one_line(tmp_path, monkeypatch):
    def absent(*arguments, **options):
        raise OSError("no such data set\n\nmore about it")

    monkeypatch.setattr("huggingface_hub.snapshot_download", absent)
    _, errors, _ = fetch((Hub("a/b", ("*.csv",)),), tmp_path, (METADATA,))
    assert len(errors) == 1 and errors[0].startswith("data set a/b on the Hub: ")
    assert "\n" not in errors[0]


def test_a_busy_server_is_asked_again(server, tmp_path):
    assert download(File(f"{server}/busy", "list.csv"), tmp_path).read_bytes() == CONTENT
    assert len(Server.asked) == 3


@pytest.mark.parametrize(
    ("path", "facts", "message"),
    [
        ("/gone", {}, "status 404; it is not there any more"),
        ("/page", {}, "row 1 looks like an HTML page"),
        ("/file", {"checksum": "sha256:00"}, "the checksum is not sha256:00"),
        ("/file", {"size": 5}, f"{len(CONTENT):,} bytes came, expected 5"),
    ],
)
def test_what_is_not_the_file_never_gets_its_name(server, tmp_path, path, facts, message):
    with pytest.raises(FetchError, match=message) as stop:
        download(File(f"{server}{path}", "list.csv", **facts), tmp_path)
    assert f"{server}{path}" in str(stop.value) and "\n" not in str(stop.value)
    assert not [x for x in tmp_path.rglob("*") if x.suffix in (".csv", ".partial")]


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "ATTEMPTS", 0)
    with pytest.raises(FetchError, match="no connection"):
        download(File(f"http://localhost:{9}/x", "list.csv"), tmp_path)


def test_a_release_of_several_sources(server, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: calls.append((a, k)))
    sources = (
        Zenodo(7, ("captions_*.csv",), api=f"{server}/records"),
        File(f"{server}/gone", "gone.csv"),
        File(f"{server}/file", "sound.7z", AUDIO),
        Hub("a/b", ("data/*.parquet",), METADATA, revision="abc"),
        Steps("ask for it", METADATA),
        Steps("unpack it"),
    )
    done, errors, steps = fetch(sources, tmp_path, (METADATA,))
    assert {path.name for path in done} == {f"captions_{x}.csv" for x in "abc"}
    assert len(errors) == 1 and "/gone: status 404" in errors[0] and steps == ["ask for it"]
    (repository,), options = calls[0]
    assert repository == "a/b" and options["revision"] == "abc"
    assert options["allow_patterns"] == ["data/*.parquet"] and options["repo_type"] == "dataset"
    done, errors, steps = fetch(sources[:1], tmp_path / "trial", (METADATA, AUDIO), limit=2)
    assert len(done) == 2 and not errors and not steps


def test_every_corpus_of_the_study_says_how_it_is_had(repository):
    from captionstew.corpora.build.corpus_list import read_corpora

    entries = read_corpora(repository / "egs" / "captionstew" / "corpora.csv")
    for name in {entry.name for entry in entries}:
        sources = known.load(name).FETCH
        assert sources, name
        for source in sources:
            assert source.what in (METADATA, AUDIO)
            if isinstance(source, File):
                assert source.url.startswith("https://") and not Path(source.path).is_absolute()


def test_checksums_are_those_of_the_real_lists(shared_dir):
    import gzip

    for name, path, real in (
        ("audiocaps", "dataset/train.csv", "audiocaps/train.csv.gz"),
        ("audiocaps", "dataset2.0/test.csv", "audiocaps/v2/test.csv.gz"),
        ("vggsound", "test.csv", "vggsound/test.csv.gz"),
        ("audioset", "balanced_train_segments.csv", "audioset/balanced_train_segments.csv.gz"),
    ):
        (file,) = (x for x in known.load(name).FETCH if isinstance(x, File) and x.path == path)
        content = gzip.decompress((shared_dir / "metadata" / real).read_bytes())
        assert file.checksum == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_the_program_says_what_is_left_to_do(repository, monkeypatch, capsys, tmp_path):
    import runpy

    (tmp_path / "corpora.csv").write_text(
        "name,split,role,weight\nmine,*,pretrain,1\nurbansound8k,all,evaluation,\n"
    )
    main = runpy.run_path(repository / "egs/captionstew/local/fetch.py")["main"]
    flags = ["--corpora", tmp_path / "corpora.csv", "--corpora-dir", tmp_path, "--fetch", "all"]
    monkeypatch.setattr("sys.argv", ["fetch.py", *map(str, flags)])
    assert main() == 0
    printed = capsys.readouterr().out
    assert "mine: 0 files" in printed and "by hand: UrbanSound8K.tar.gz from https://" in printed
    monkeypatch.setitem(main.__globals__, "fetch", lambda *a, **k: ([], ["x: status 404"], []))
    assert main() == 1 and "fetch.py: mine: x: status 404" in capsys.readouterr().err
