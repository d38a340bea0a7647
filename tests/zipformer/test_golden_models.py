"""Whole models against the original's numbers, in evaluation and in training mode."""

import pytest
import torch

from zipformer import Zipformer, set_batch_count
from zipformer.randomness import share_randomness
from zipformer.regularisers import Whiten
from zipformer.schedules import named_schedules, zero_rates
from zipformer.sequences import padding_mask

OUTPUT = 1e-5
EVALUATIONS = [
    ("model_a", "eval"),
    ("model_a", "eval_short"),
    ("model_a", "eval_one_long"),
    ("model_b", "eval"),
]
MODELS = ["model_a", "model_b"]


@pytest.mark.parametrize("name, kind", EVALUATIONS)
def test_evaluation(golden, name, kind):
    model = golden.tagger(name).eval()
    file = golden.tensors(f"{name}.{kind}")
    stacks = keep_outputs(model.encoder.encoders)
    with torch.no_grad():
        frontend = model.encoder_embed(file["in.features"])
        frames, lengths = model.encode(file["in.features"], file["in.lens"])
        logits = model(file["in.features"], file["in.lens"])
    golden.assert_close(frontend, file["out.frontend"], OUTPUT, name="frontend")
    golden.assert_close(frames, file["out.encoder"], OUTPUT, name="encoder")
    golden.assert_close(logits, file["out.logits"], OUTPUT, name="logits")
    assert torch.equal(lengths, file["out.encoder_lens"])
    if "out.frontend_lens" in file:
        assert torch.equal((file["in.lens"] - 7) // 2, file["out.frontend_lens"])
    for index, output in enumerate(stacks):
        if f"out.stack{index}" in file:
            golden.assert_close(output, file[f"out.stack{index}"], OUTPUT, name=f"stack {index}")


@pytest.mark.parametrize("name", MODELS)
def test_gradients_in_evaluation_mode(golden, name):
    model = golden.tagger(name).eval()
    check_step(golden, model, name, "eval_grads")


@pytest.mark.parametrize("name", MODELS)
def test_training_without_modifiers(golden, fixed_randomness, name):
    model = training_model(golden, name, "train_plain", fixed_randomness(decision=1.0))
    zero_rates(model)
    check_step(golden, model, name, "train_plain")


@pytest.mark.parametrize("name", MODELS)
def test_training_with_every_modifier(golden, fixed_randomness, name):
    model = training_model(golden, name, "train_modified", fixed_randomness(decision=0.0))
    zero_rates(model)
    check_step(golden, model, name, "train_modified")
    whitens = {path: module for path, module in model.named_modules() if isinstance(module, Whiten)}
    expected = golden.about(f"{name}.train_modified")["whiten"]
    found = {
        p: "above limit" if m.prob == Whiten.max_prob else "below limit" for p, m in whitens.items()
    }
    assert found == expected


@pytest.mark.parametrize("name", MODELS)
def test_training_with_masks(golden, fixed_randomness, name):
    file = golden.tensors(f"{name}.train_masks")
    draws = [file[key] for key in sorted(key for key in file if key.startswith("draw."))]
    model = training_model(
        golden, name, "train_masks", fixed_randomness(decision=1.0, tensors=draws)
    )
    for path, schedule in named_schedules(model).items():
        if path.endswith("encoder_pos.dropout") or path.startswith("classifier."):
            schedule.__init__((0.0, 0.0))
    check_step(golden, model, name, "train_masks")
    assert not draws


@pytest.mark.parametrize("index", range(4))
def test_causal_encoder(golden, index):
    about = golden.about(f"encoder_c.eval{index}")
    config, _ = golden.config("encoder_c")
    config = config.replace(
        chunk_size=about["chunk_size"], left_context_frames=about["left_context_frames"]
    )
    encoder = Zipformer(config).encoder.eval()
    encoder.load_state_dict(golden.tensors("encoder_c.state"))
    file = golden.tensors(f"encoder_c.eval{index}")
    x = file["in.x"].transpose(0, 1).clone().requires_grad_()
    stacks = keep_outputs(encoder.encoders)
    assert torch.equal(padding_mask(file["in.lens"], x.shape[1], x.device), file["in.padding_mask"])
    frames, lengths = encoder(x, file["in.lens"])
    assert torch.equal(lengths, file["out.lens"])
    golden.assert_close(frames.transpose(0, 1), file["out.encoder"], OUTPUT, name="encoder")
    for i, output in enumerate(stacks):
        golden.assert_close(
            output.transpose(0, 1), file[f"out.stack{i}"], OUTPUT, name=f"stack {i}"
        )
    (frames.transpose(0, 1) * file["in.loss_weight"]).sum().backward()
    if "grad.in.x" in file:
        golden.assert_close(x.grad.transpose(0, 1), file["grad.in.x"], 1e-4, name="gradient of x")
    check_parameter_gradients(golden, encoder, file, complete=index == 0)


def training_model(golden, name, kind, randomness):
    model = golden.tagger(name).train()
    share_randomness(model, randomness)
    set_batch_count(model, golden.about(f"{name}.{kind}")["batch_count"])
    return model


def check_step(golden, model, name, kind):
    """Loss, outputs and all gradients of one forward and backward."""
    inputs, file = golden.tensors(f"{name}.eval"), golden.tensors(f"{name}.{kind}")
    features = inputs["in.features"].clone().requires_grad_()
    frames, lengths = model.encode(features, inputs["in.lens"])
    logits = model.classifier(frames, lengths)
    loss = (frames * file["in.loss_weight_encoder"]).sum() + (
        logits * file["in.loss_weight_logits"]
    ).sum()
    loss.backward()
    golden.assert_close(frames, file["out.encoder"], OUTPUT, name="encoder")
    golden.assert_close(logits, file["out.logits"], OUTPUT, name="logits")
    golden.assert_close(loss, file["out.loss"], 1e-5, 1e-4, name="loss")
    golden.assert_close(
        features.grad, file["grad.in.features"], 1e-4, name="gradient of the features"
    )
    check_parameter_gradients(
        golden, model, file, complete=kind in ("eval_grads", "train_modified")
    )


def check_parameter_gradients(golden, model, file, complete=True):
    """Gradients of the parameters in the file; `complete`: parameters without an entry have no
    gradient.
    """
    parameters = dict(model.named_parameters())
    prefix = "grad.param."
    expected = {
        key.removeprefix(prefix): value for key, value in file.items() if key.startswith(prefix)
    }
    for key, value in expected.items():
        golden.assert_close(parameters[key].grad, value, 1e-4, 1e-5, name=key)
    if complete and expected:
        assert {key for key, p in parameters.items() if p.grad is not None} == set(expected)


def keep_outputs(modules):
    outputs = [None] * len(modules)
    for index, module in enumerate(modules):
        module.register_forward_hook(
            lambda _m, _a, out, index=index: outputs.__setitem__(index, out)
        )
    return outputs
