"""Finding and loading the frozen language model of the question-answering protocol."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from captionstew.hashing import hash_of, sha256_of_file
from captionstew.models.qa import FrozenLanguageModel

FILES = (
    "*.json",
    "*.safetensors",
    "*.model",
    "*.txt",
    "*.jinja",
)  # of a model on the Hub: no pickles, no programs
HASHED = (".safetensors", ".json", ".jinja", ".model")


def find_language_model(name_or_path: str, allow_download: bool = False) -> Path:
    """The folder of a model given as a folder or by its name on the Hub.

    A name is looked for in the local Hub cache; the network is used with `allow_download` only.

    Raises:
      ValueError: it is not there; the message says what to do.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name_or_path, allow_patterns=list(FILES), local_files_only=not allow_download
            )
        )
    except (LocalEntryNotFoundError, HFValidationError) as error:
        advice = "is the name right, and the network there?" if allow_download else (
            "give --llm the folder of a model, or --allow-download true to fetch it from the Hub "
            "(Qwen2.5-7B-Instruct: 15 GB)"
        )  # fmt: skip
        raise ValueError(
            f"the language model {name_or_path} is not on this machine: {advice}"
        ) from error


def load_language_model(
    name_or_path: str,
    device: torch.device,
    *,
    bits: int = 16,
    checkpointing: bool = False,
    allow_download: bool = False,
) -> FrozenLanguageModel:
    """The model and its tokenizer, frozen: bfloat16 on a GPU, float32 on a CPU; 8 or 4 `bits` with
    bitsandbytes.

    Raises:
      ValueError: the model is not there or not usable, or bitsandbytes or its GPU is missing.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = find_language_model(name_or_path, allow_download)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "use_safetensors": True}
    if bits != 16:
        options |= {
            "quantization_config": _quantization(bits, device),
            "device_map": {"": str(device)},
        }
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, **options)
    except SafetensorError as error:
        raise ValueError(
            f"{folder}: its weights are broken ({error}); fetch them again, or name another model"
            " with --llm"
        ) from error
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    if bits == 16:
        model.to(device)  # type: ignore[arg-type]  # a method under a wrapper without types
    description = {"path": name_or_path, "sha256": folder_hash(folder), "bits": bits}
    return FrozenLanguageModel(model, tokenizer, description, checkpointing)


def folder_hash(folder: Path) -> str:
    """Changes with any weight, setting or token of the model in `folder`; reads all of it."""
    files = sorted(path for path in folder.iterdir() if path.suffix in HASHED)
    return hash_of({path.name: sha256_of_file(path) for path in files})


def _quantization(bits: int, device: torch.device) -> Any:
    from transformers import BitsAndBytesConfig

    missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"--llm-bits {bits} needs {' and '.join(missing)} (pip install); without it use"
            " --llm-bits 16"
        )
    if device.type != "cuda":
        raise ValueError(f"--llm-bits {bits} needs a GPU; on a CPU use --llm-bits 16")
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
