"""A checkpoint that asks for its own code is refused, whatever the terminal answers."""

import json
import subprocess
import sys

import pytest

LOADERS = {
    "tokenizer": "from captionstew.data.tokenizer import load_tokenizer; load_tokenizer(folder)",
    "text tower": "from captionstew.models.text_tower import _load_pretrained;"
    " _load_pretrained(folder, 10)",
    "text decoder": "from captionstew.models.text_decoder import _load_bart;"
    " _load_bart(folder, None, 4)",
    "language model": "import torch; from captionstew.models.language_model import"
    " load_language_model; load_language_model(folder, torch.device('cpu'))",
}


@pytest.mark.parametrize("what", LOADERS)
def test_code_of_a_checkpoint_is_never_run(tmp_path, what):
    folder, trace = tmp_path / "model", tmp_path / "was run"
    folder.mkdir()
    (folder / "payload.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass C: pass\n")
    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
    auto_map = dict.fromkeys(classes, "payload.C")
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto_map}))
    tokenizer = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["payload.C", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    code = f"folder = {str(folder)!r}\n" + LOADERS[what]
    done = subprocess.run(
        [sys.executable, "-c", code], input="y\n" * 9, capture_output=True, text=True
    )
    assert done.returncode != 0 and not trace.exists(), done.stderr
    assert "trust_remote_code" in done.stderr or "Unrecognized" in done.stderr, done.stderr
