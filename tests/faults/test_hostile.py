"""Files that were made to do harm, or were damaged: nothing of them runs, nothing hangs, and every
reader says in one line what is wrong.
"""

import importlib.util
import io
import os
import pickle
import time
import zipfile

import numpy as np
import pytest
import torch

from captionstew.checkpoint import load_checkpoint
from captionstew.corpora.own.prepare import prepare_folder
from captionstew.data.manifests.labels import read_class_list
from captionstew.errors import USER_ERRORS, one_line
from captionstew.evaluation.qa.reply_store import open_store
from captionstew.evaluation.qa.scores import read_replies
from captionstew.evaluation.results import read_results
from captionstew.inference.search_index import load_index
from captionstew.models.encoders.load import load_encoder
from captionstew.models.encoders.stored import load_embeddings
from captionstew.training.log import read_scalars
from zipformer import load_pretrained

SECONDS = 10.0  # the longest that a reader may take for any of these

# (module, name, arguments) of what a pickle asks to be called
CALLS = [
    ("os", "system", ("touch {trap}",)),
    ("posix", "system", ("touch {trap}",)),
    ("os", "popen", ("touch {trap}",)),
    ("os", "mkdir", ("{trap}",)),
    ("posix", "mkdir", ("{trap}",)),
    ("os", "execv", ("/bin/touch", ("touch", "{trap}"))),
    ("subprocess", "Popen", (("touch", "{trap}"),)),
    ("subprocess", "run", (("touch", "{trap}"),)),
    ("subprocess", "getoutput", ("touch {trap}",)),
    ("builtins", "eval", ("open('{trap}', 'w')",)),
    ("builtins", "exec", ("open('{trap}', 'w')",)),
    ("builtins", "open", ("{trap}", "w")),
    ("builtins", "__import__", ("antigravity",)),
    ("builtins", "compile", ("1", "a", "eval")),
    ("builtins", "getattr", ("a", "upper")),
    ("io", "open", ("{trap}", "w")),
    ("_io", "open", ("{trap}", "w")),
    ("io", "FileIO", ("{trap}", "w")),
    ("pathlib", "Path.touch", ("{trap}",)),
    ("pathlib", "PosixPath.mkdir", ("{trap}",)),
    ("shutil", "copyfile", ("/etc/hostname", "{trap}")),
    ("shutil", "rmtree", ("{trap}",)),
    ("runpy", "run_path", ("{script}",)),
    ("runpy", "_run_code", ("open('{trap}', 'w')", {})),
    ("code", "InteractiveInterpreter", ()),
    ("timeit", "timeit", ("open('{trap}', 'w')",)),
    ("cProfile", "run", ("open('{trap}', 'w')",)),
    ("pdb", "run", ("open('{trap}', 'w')",)),
    ("trace", "Trace", ()),
    ("bdb", "Bdb", ()),
    ("importlib", "import_module", ("antigravity",)),
    ("importlib.util", "spec_from_file_location", ("a", "{script}")),
    ("pickle", "loads", (b"cos\nsystem\n(S'touch {trap}'\ntR.",)),
    ("_pickle", "loads", (b"cos\nsystem\n(S'touch {trap}'\ntR.",)),
    ("marshal", "loads", (b"",)),
    ("numpy", "load", ("{trap}",)),
    ("numpy", "save", ("{trap}", 1)),
    ("numpy.core.multiarray", "_reconstruct", ()),
    ("torch", "load", ("{trap}",)),
    ("torch", "save", (1, "{trap}")),
    ("torch.hub", "load", ("a/b", "c")),
    ("torch.jit", "load", ("{trap}",)),
    ("torch.utils.cpp_extension", "load_inline", ("a", "b")),
    ("torch.serialization", "add_safe_globals", (["os.system"],)),
    ("ctypes", "CDLL", ("libc.so.6",)),
    ("webbrowser", "open", ("http://localhost",)),
    ("urllib.request", "urlopen", ("http://localhost",)),
    ("socket", "create_connection", (("localhost", 9),)),
    ("smtplib", "SMTP", ("localhost", 9)),
    ("asyncio", "run", ()),
    ("multiprocessing", "Process", ()),
    ("threading", "Thread", ()),
    ("signal", "raise_signal", (15,)),
    ("sys", "exit", (0,)),
    ("sys", "setrecursionlimit", (10,)),
    ("operator", "attrgetter", ("system",)),
    ("functools", "partial", (print, "x")),
    ("argparse", "FileType", ("w",)),
    ("argparse", "Namespace.__init__", ()),
    ("captionstew.files", "write_json", ("{trap}", 1)),
]


def pickled(module, name, arguments):
    """Bytes of a pickle in protocol 2 that calls module.name(*arguments)."""
    body = pickle.dumps(arguments, protocol=2)[2:-1]
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + body + b"R."


def filled(value, trap, script):
    if isinstance(value, str):
        return value.replace("{trap}", str(trap)).replace("{script}", str(script))
    if isinstance(value, bytes):
        return value.replace(b"{trap}", str(trap).encode())
    if isinstance(value, tuple):
        return tuple(filled(one, trap, script) for one in value)
    return value


def in_archive(content):
    """The form of torch.save, with this pickle."""
    whole = io.BytesIO()
    torch.save({"model": {}}, whole)
    changed = io.BytesIO()
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(changed, "w") as new:
        for record in old.namelist():
            new.writestr(record, content if record.endswith("data.pkl") else old.read(record))
    return changed.getvalue()


def refused(read, path):
    """The one line with which a reader ends; None where it took the file. Anything but a user's
    error, and slowness, fails the test.
    """
    began = time.monotonic()
    try:
        read(path)
        line = None
    except USER_ERRORS as error:
        line = one_line(error)
        assert line and "\n" not in line and line.isprintable()
    assert time.monotonic() - began < SECONDS
    return line


@pytest.mark.parametrize("form", ["archive", "plain"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}.{call[1]}")
def test_no_payload_runs(tmp_path, monkeypatch, call, form):
    trap, script, path = tmp_path / "executed", tmp_path / "script.py", tmp_path / "a.pt"
    script.write_text(f"open({str(trap)!r}, 'w')")
    module, name, arguments = call
    try:
        content = pickled(module, name, filled(arguments, trap, script))
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        pytest.fail(f"the payload itself is broken: {error}")
    path.write_bytes(in_archive(content) if form == "archive" else content)
    monkeypatch.setattr(os, "system", lambda *_: trap.touch())
    for read in (load_checkpoint, load_pretrained, load_encoder):
        line = refused(read, path)
        assert line is not None and "weights_only" not in line
    assert not trap.exists()


DEEP = b"[" * 100_000 + b"]" * 100_000
BYTES = {
    "nothing": b"",
    "a zero": b"\0",
    "zeros": bytes(1000),
    "no UTF-8": b"\xff\xfe\xfd" * 50,
    "a page": b"<html><script>alert(1)</script></html>",
    "half an archive": b"PK\x03\x04" + b"x" * 100,
    "an empty archive": b"PK\x05\x06" + bytes(18),
    "deep": DEEP,
    "deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "null": b"null",
    "a number": b"1e999",
    "NaN": b'{"metrics": {"a": NaN}}',
    "half a surrogate pair": b'{"task": "\\ud800"}',
    "escape codes": b"\x1b[2J\x1b]0;title\x07",
    "an unclosed quote": b'"' + b"a,b\n" * 1000,
    "a long line": b"x" * 5_000_000,
    "many columns": b"a," * 20_000,
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
}


def read_folder_of(path):
    folder = path.with_name("recordings")
    folder.mkdir(exist_ok=True)
    (folder / "captions.csv").write_bytes(path.read_bytes())
    prepare_folder(folder, path.with_name("out"), num_jobs=1)


def read_result(path):
    (path.parent / "results").mkdir(exist_ok=True)
    (path.parent / "results" / "a.json").write_bytes(path.read_bytes())
    read_results(path.parent)


def read_scalars_of(path):
    (path.parent / "scalars.jsonl").write_bytes(path.read_bytes())
    read_scalars(path.parent)


def open_store_at(path):
    with open_store(path):
        pass


def read_study_plan(path):
    spec = importlib.util.spec_from_file_location("study_of_faults", STUDY)
    study = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["study_of_faults"] = study
    spec.loader.exec_module(study)
    study.read_plan(path, {})


STUDY = os.path.join(os.path.dirname(__file__), "..", "..", "egs", "study", "run.py")
READERS = {
    "checkpoint": (load_checkpoint, "a.pt"),
    "encoder": (load_encoder, "a.pt"),
    "safetensors": (load_encoder, "a.safetensors"),
    "pretrained": (load_pretrained, "a.pt"),
    "result": (read_result, "a.json"),
    "replies": (read_replies, "a.jsonl"),
    "store of replies": (open_store_at, "a.jsonl"),
    "index": (load_index, "a.npz"),
    "embeddings": (load_embeddings, "a.npz"),
    "class list": (read_class_list, "a.json"),
    "class table": (read_class_list, "a.csv"),
    "captions": (read_folder_of, "a.csv"),
    "scalars": (read_scalars_of, "a.jsonl"),
    "plan": (read_study_plan, "a.json"),
}


@pytest.mark.parametrize("what", BYTES)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_says_what_is_wrong(tmp_path, reader, what):
    read, name = READERS[reader]
    (tmp_path / name).write_bytes(BYTES[what])
    refused(read, tmp_path / name)


@pytest.mark.parametrize(
    "entries",
    [
        {"config": {"encoder": 3}},
        {"config": {"encoder": {"num_heads": "many"}}},
        {"config": {}},
        {"config": []},
        {"version": "1"},
        {"version": None},
        {"model": []},
        {"model": {"a": "b"}},
        {"model": {3: torch.zeros(1)}},
        {"step": 1.5, "config": {}},
    ],
    ids=str,
)
def test_checkpoints_with_entries_of_other_types(tmp_path, entries):
    content = {"format": "captionstew", "version": 1, "model": {"w": torch.zeros(2)}, "config": {}}
    torch.save(content | entries, tmp_path / "a.pt")
    for read in (load_encoder, load_pretrained):
        assert refused(read, tmp_path / "a.pt") is not None


@pytest.mark.parametrize("kind", ["objects", "shape", "names"])
def test_arrays_that_hold_objects_or_do_not_fit(tmp_path, kind):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    values = {"objects": np.array([Trap()]), "shape": np.zeros(3), "names": np.array(["a"])}[kind]
    np.savez(tmp_path / "a.npz", files=values, vectors=values, stamps=values, model=values)
    np.savez(tmp_path / "b.npz", ids=values, vectors=values)
    assert refused(load_index, tmp_path / "a.npz") is not None
    assert refused(load_embeddings, tmp_path / "b.npz") is not None
    assert not (tmp_path / "executed").exists()


def test_hostile_inputs_are_counted():
    assert 2 * len(CALLS) + len(BYTES) * len(READERS) + 13 > 200
