"""Golden data of the original encoder, and ways to take the randomness out of a model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zipformer import AudioTagger, ZipformerConfig
from zipformer.randomness import Randomness


class FixedRandomness(Randomness):
    """Every decision compares the same number; uniform tensors are 1 or come from a list, in order
    of use.
    """

    def __init__(self, decision: float, tensors=None):
        self.decision = decision
        self.tensors = tensors

    def decide(self, probability):
        return self.decision < probability

    def uniform(self, shape, device):
        if self.tensors is None:
            return torch.ones(shape)
        return self.tensors.pop(0).reshape(shape)


class Golden:
    """Reader of the golden folder with its tolerances: |a - b| <= tol * max|b| + atol."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = self.json("index.json")["files"]

    def json(self, name):
        return json.loads((self.folder / name).read_text())

    def tensors(self, name):
        self.about(name)
        return load_file(self.folder / f"{name}.safetensors")

    def about(self, name):
        if f"{name}.safetensors" not in self.files:
            pytest.skip(f"reference data not found: {name} is in the full set alone")
        return self.files[f"{name}.safetensors"]

    def config(self, name):
        """Configuration of a golden model and its number of classes."""
        values = dict(self.about(f"{name}.state")["config"])
        classes = values.pop("num_events", None)
        return ZipformerConfig(**values), classes

    def tagger(self, name):
        config, classes = self.config(name)
        model = AudioTagger(config, classes)
        model.load_state_dict(self.tensors(f"{name}.state"))
        return model

    @staticmethod
    def assert_close(actual, expected, tol, atol=0.0, name=""):
        assert actual.shape == expected.shape, (
            f"{name}: {tuple(actual.shape)} is not {tuple(expected.shape)}"
        )
        error = (actual.detach() - expected).abs().max().item() if expected.numel() else 0.0
        bound = tol * expected.abs().max().item() + atol
        assert error <= bound, f"{name}: error {error:.3g} exceeds {bound:.3g}"


@pytest.fixture(scope="session")
def golden(golden_dir):
    return Golden(golden_dir("zipformer_golden"))


@pytest.fixture(scope="session")
def fixed_randomness():
    return FixedRandomness


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
