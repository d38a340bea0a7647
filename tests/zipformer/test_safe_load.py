"""Files of torch.save are read whole, unchanged, and without running code."""

import argparse
import collections
import pathlib
import pickle
import random
import re
import sys
import tomllib
import types

import pytest
import torch

from zipformer.safe_load import safe_load


def in_old_form(path, **entries):
    """As icefall's training writes it: the model, and the options beside it."""
    torch.save({"model": {"w": torch.arange(4.0)}, **entries}, path)


def attribute_dict(monkeypatch):
    """icefall's class of options, which is not installed here, as its pickles name it."""
    module = types.ModuleType("icefall.utils")
    kind = type("AttributeDict", (dict,), {"__module__": "icefall.utils"})
    module.AttributeDict = kind
    monkeypatch.setitem(sys.modules, "icefall", types.ModuleType("icefall"))
    monkeypatch.setitem(sys.modules, "icefall.utils", module)
    return kind


def test_options_of_old_training_checkpoints(tmp_path, monkeypatch):
    kind = attribute_dict(monkeypatch)
    options = argparse.Namespace(exp_dir=pathlib.Path("zipformer/exp"), full_libri=True)
    in_old_form(
        tmp_path / "epoch-30.pt",
        exp_dir=pathlib.PosixPath("/data/exp"),
        lang=pathlib.PurePosixPath("lang"),
        args=options,
        params=kind(lr=0.045, manifest_dir=pathlib.Path("data/fbank")),
        counts=collections.Counter("aab"),
        dtype=torch.float16,
        device=torch.device("cpu"),
    )
    monkeypatch.undo()
    content = safe_load(tmp_path / "epoch-30.pt")
    assert torch.equal(content["model"]["w"], torch.arange(4.0))
    assert content["exp_dir"] == pathlib.Path("/data/exp") and content["args"] == options
    assert dict(content["params"]) == {"lr": 0.045, "manifest_dir": pathlib.Path("data/fbank")}


def test_paths_of_other_pythons_and_systems(tmp_path):
    """Python 3.13 names the class by its private module; Windows has its own."""
    in_old_form(tmp_path / "a.pt", where=pathlib.PosixPath("/data/exp"))
    for module, name in (("pathlib._local", "PosixPath"), ("pathlib", "WindowsPath")):
        renamed = rename_class(tmp_path / "a.pt", f"{module}\n{name}\n")
        assert safe_load(renamed)["where"].parts == ("/", "data", "exp") or name == "WindowsPath"


def rename_class(path, name):
    """A copy whose pickle names another class for its path."""
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for record in old.namelist():
            content = old.read(record)
            if record.endswith("data.pkl"):
                content = content.replace(b"pathlib\nPosixPath\n", name.encode())
            new.writestr(record, content)
    renamed = path.with_name("renamed.pt")
    renamed.write_bytes(buffer.getvalue())
    return renamed


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.mkdir, (pathlib.Path(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_payload_is_called_what_it_is(tmp_path, zipped):
    """Beside the types that are let through, too: their methods are not."""
    path, trap = tmp_path / "a.pt", tmp_path / "executed"
    torch.save({"model": Payload(str(trap))}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"a\.pt holds more than tensors and plain .* not opened"):
        safe_load(path)
    with pytest.raises(ValueError, match="not opened") as raised:
        safe_load(path, tensors_on_disk=True)
    assert not trap.exists() and "weights_only" not in str(raised.value)


def test_every_flipped_bit_is_found_or_harmless(tmp_path):
    path = tmp_path / "a.pt"
    content = {"model": {"w": torch.arange(100.0)}, "step": 7, "name": "a"}
    torch.save(content, path)
    whole = path.read_bytes()
    chosen, found = random.Random(0), 0
    for _ in range(1000):
        place, bit = chosen.randrange(len(whole)), chosen.randrange(8)
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        try:
            read = safe_load(path)
        except ValueError as error:
            found += 1
            assert "damaged" in str(error)
        else:  # padding, or a date of the archive's table
            assert torch.equal(read.pop("model")["w"], content["model"]["w"])
            assert read == {"step": 7, "name": "a"}
    assert found > 100


def test_a_flipped_bit_of_a_weight_names_the_record(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"w": torch.full((1000,), 1.0)}, path)
    whole = bytearray(path.read_bytes())
    whole[whole.index(torch.ones(4).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"a\.pt is damaged: the checksum of its record a/data/0"):
        safe_load(path)


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(safe_load(tmp_path / "a.pt")["w"], torch.ones(3))


def test_plain_pickles_are_no_checkpoints(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"step": 3}))
    with pytest.raises(ValueError, match=r"a\.pt is no checkpoint that torch can read"):
        safe_load(tmp_path / "a.pt")


def test_no_torch_is_allowed_whose_weights_only_has_known_holes():
    """CVE-2025-32434 before 2.6, CVE-2026-24747 before 2.10."""
    project = tomllib.loads((pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text())
    (floor,) = [
        re.fullmatch(r"torch>=(\d+)\.(\d+)", name)
        for name in project["project"]["dependencies"]
        if name.startswith("torch>")
    ]
    assert tuple(map(int, floor.groups())) >= (2, 10)
