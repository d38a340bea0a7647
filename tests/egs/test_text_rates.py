"""--text-lr-scale slows the text side, and nothing else."""

import importlib.util
import sys

import pytest

from captionstew.data.tokenizer import load_tokenizer
from captionstew.flags import parse_flags
from zipformer import get_parameter_groups

RECIPES = {"contrastive": ("text_tower", "tiny"), "captioning": ("decoder", "tiny")}


@pytest.fixture
def recipe(repository):
    """recipe("contrastive") -> the training program as a module."""

    def load(name):
        path = repository / "egs" / "captionstew" / name / "train.py"
        spec = importlib.util.spec_from_file_location(f"{name}_train", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for their annotations
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize("name", RECIPES)
def test_the_text_side_alone_is_slower(recipe, name, mini_data, tiny_encoder):
    part, size = RECIPES[name]
    module, bpe = recipe(name), str(mini_data / "bpe.model")
    option = "--text-tower" if name == "contrastive" else "--text-decoder"
    argv = ["--tokenizer", bpe, option, size, "--text-lr-scale", "0.1"]
    flags = parse_flags(module.Flags, None, [*argv, *map(str, tiny_encoder)])
    model = module.initial_model(flags, load_tokenizer(bpe))
    rates = {
        key: group["lr"]
        for group in get_parameter_groups(model, lr=1.0)
        for key, _ in group["named_params"]
    }
    slow = {key for key, rate in rates.items() if rate == pytest.approx(0.1)}
    assert slow == {key for key in rates if key.startswith(f"{part}.")} != set()
    assert {rate for key, rate in rates.items() if key not in slow} == {1.0}
