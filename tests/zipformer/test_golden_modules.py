"""Single modules against the original's numbers. The golden data is (time, batch, channel); modules
are batch first.
"""

import pytest
import torch

from zipformer import ZipformerConfig
from zipformer.activations import (
    SWOOSH_L,
    SWOOSH_R,
    SwooshDropoutLinear,
    swoosh,
    swoosh_slope,
    swoosh_value,
)
from zipformer.attention import AttentionWeights, NonlinAttention, SelfAttention, attend
from zipformer.convolution import ConvolutionModule
from zipformer.encoder import feature_mask
from zipformer.feedforward import FeedForward
from zipformer.layer import EncoderLayer
from zipformer.norm import BiasNorm
from zipformer.positions import RelativePositions, relative_positions
from zipformer.randomness import SharedDropout, share_randomness
from zipformer.regularisers import (
    Balancer,
    ScaleGrad,
    Whiten,
    limit_param,
    penalize_abs,
    whitening_direction,
)
from zipformer.resampling import (
    Bypass,
    Downsample,
    convert_channels,
    full_dimension_output,
    upsample,
)
from zipformer.schedules import Rate, constant_rate, set_batch_count, zero_rates
from zipformer.sequences import Frames
from zipformer.tagging import TaggingHead

TOL, ATOL = 2e-5, 1e-6


@pytest.fixture
def close(golden):
    return lambda actual, expected, name="", tol=TOL, atol=ATOL: golden.assert_close(
        actual, expected, tol, atol, name
    )


def test_swoosh(golden, close):
    file = golden.tensors("mod.swoosh")
    for kind in (SWOOSH_L, SWOOSH_R):
        name = kind.name
        close(swoosh_value(file["in.x"], kind), file[f"out.{name}"])
        close(swoosh_slope(file["in.x"], kind), file[f"out.{name}_slope"])
        x = file["in.x"].clone().requires_grad_()
        value = swoosh(x, kind)
        value.sum().backward()
        close(value, file[f"out.{name}"])
        close(x.grad, file[f"out.{name}_slope"])


@pytest.mark.parametrize("kind", [SWOOSH_L, SWOOSH_R])
def test_swoosh_is_stable_for_large_inputs(kind):
    x = torch.tensor([-1e4, -100.0, 100.0, 1e4], requires_grad=True)
    swoosh(x, kind).sum().backward()
    assert torch.allclose(x.grad, torch.tensor([-0.08, -0.08, 0.92, 0.92]))


def test_functions(golden, close):
    file = golden.tensors("mod.functions")
    functions = {
        "softmax": lambda x: x.softmax(dim=-1),
        "penalty": lambda x: penalize_abs(x, 25.0, 1e-4),
        "limit": lambda x: limit_param(x, -1.5, 1.5),
        "scale_grad": ScaleGrad(0.2),
    }
    for name, function in functions.items():
        x = file[f"{name}.in.x"].clone().requires_grad_()
        out = function(x)
        out.backward(file[f"{name}.in.grad_out"])
        close(x.grad, file[f"{name}.grad.x"], name)
        close(out, file["softmax.out"] if name == "softmax" else x)


@pytest.mark.parametrize(
    "case", ["last", "mid", "above_neg", "above_pos", "below_pos", "below_neg"]
)
def test_bias_norm(golden, close, fixed_randomness, case):
    file = golden.tensors("mod.biasnorm")
    dim = 1 if case == "mid" else -1
    norm = BiasNorm(file[f"{case}.bias"].numel())
    norm.load_state_dict({"bias": file[f"{case}.bias"], "log_scale": file[f"{case}.log_scale"]})
    norm.train(case not in ("last", "mid")).randomness = fixed_randomness(decision=0.0)
    x = file[f"{case}.in.x"].clone().requires_grad_()
    out = norm(x.movedim(dim, -1)).movedim(-1, dim)
    out.backward(file[f"{case}.in.grad_out"])
    close(out, file[f"{case}.out"])
    close(x.grad, file[f"{case}.grad.x"])
    close(norm.bias.grad, file[f"{case}.grad.param.bias"])
    close(norm.log_scale.grad, file[f"{case}.grad.param.log_scale"])
    with torch.no_grad():
        close(norm(x.movedim(dim, -1)).movedim(-1, dim), file[f"{case}.out"])


def test_balancer(golden, close):
    file = golden.tensors("mod.balancer")
    for case, settings in golden.about("mod.balancer")["cases"].items():
        x, grad_out = file[f"{case}in.x"].clone().requires_grad_(), file[f"{case}in.grad_out"]
        channels = x.shape[settings["channel_dim"]]
        out = Balancer(channels, prob=1.0, **settings)(x)
        out.backward(grad_out)
        assert torch.equal(out, x)
        close(x.grad, file[f"{case}grad.x"], case)
        change, expected = x.grad - grad_out, file[f"{case}grad.x"] - grad_out
        close(change, expected, case, tol=5e-5, atol=0.0)


def test_whiten(golden, close):
    file = golden.tensors("mod.whiten")
    for case, settings in golden.about("mod.whiten")["cases"].items():
        x, grad_out = file[f"{case}.in.x"].clone().requires_grad_(), file[f"{case}.in.grad_out"]
        whiten = Whiten(settings["num_groups"], settings["whitening_limit"], settings["grad_scale"])
        whiten.prob = 1.0
        whiten(x).backward(grad_out)
        close(x.grad, file[f"{case}.grad.x"], case)
        close(x.grad - grad_out, file[f"{case}.grad.x"] - grad_out, case, tol=5e-5, atol=0.0)
        metric, _ = whitening_direction(
            x.detach(), settings["num_groups"], settings["whitening_limit"]
        )
        close(metric, file[f"{case}.out.metric"], case)
        assert whiten.prob == settings["prob_after"]


def test_modifiers_act_only_in_training_and_on_inputs_with_gradient():
    x = torch.randn(4, 3, 8)
    for module in (Balancer(8, prob=1.0), Whiten(1, 1.0), ScaleGrad(0.2)):
        module.prob = 1.0
        assert module(x) is x
        wanted = x.clone().requires_grad_()
        assert module(wanted) is not wanted
        assert module.eval()(wanted) is wanted


@pytest.mark.parametrize("case", ["time_first", "batch_first"])
def test_shared_dropout(golden, close, fixed_randomness, case):
    file = golden.tensors("mod.dropout")
    dropout = SharedDropout(constant_rate(0.3 if case == "time_first" else 0.2))
    dropout.randomness = fixed_randomness(decision=1.0, tensors=[file[f"{case}.in.u"]])
    x = file[f"{case}.in.x"].clone().requires_grad_()
    batch_first = x.transpose(0, 1) if case == "time_first" else x
    out = dropout(batch_first)
    out = out.transpose(0, 1) if case == "time_first" else out
    out.backward(file[f"{case}.in.grad_out"])
    close(out, file[f"{case}.out"])
    close(x.grad, file[f"{case}.grad.x"])


@pytest.mark.parametrize("kind, name", [(SWOOSH_L, "SwooshL"), (SWOOSH_R, "SwooshR")])
@pytest.mark.parametrize("case", ["keep", "drop"])
def test_swoosh_dropout_linear(golden, close, fixed_randomness, kind, name, case):
    file = {k.removeprefix(f"{name}.{case}."): v for k, v in golden.tensors("mod.dropout").items()}
    layer = SwooshDropoutLinear(12, 5, kind, constant_rate(0.3 if case == "drop" else 0.0))
    layer.load_state_dict({"weight": file["weight"], "bias": file["bias"]})
    layer.randomness = fixed_randomness(decision=1.0, tensors=[file.get("in.u")])
    check_module(close, layer, file, lambda x: layer(x))


def test_positions(golden, close):
    file = golden.tensors("mod.positions")
    for case in golden.about("mod.positions")["cases"]:
        dim, frames = case["dim"], case["T"]
        expected = file[f"D{dim}.T{frames}"][0]
        step = 1 if case["stored"] == "all rows" else int(case["stored"].split()[1].split("-")[0])
        close(relative_positions(frames, dim)[::step], expected, tol=3e-5, atol=0.0)
        table = RelativePositions(dim).eval()
        table(3, torch.device("cpu"))
        close(table(frames, torch.device("cpu"))[::step], expected, tol=3e-5, atol=0.0)
        close(table(min(2, frames), torch.device("cpu")), relative_positions(min(2, frames), dim))


@pytest.mark.parametrize("case", ["none", "pad", "both", "penalty", "nopos"])
def test_attention_weights(golden, close, fixed_randomness, case):
    file, sizes = (
        golden.tensors("mod.attention_weights"),
        golden.about("mod.attention_weights")["config"],
    )
    module = AttentionWeights(
        sizes["embed_dim"],
        sizes["pos_dim"],
        sizes["num_heads"],
        sizes["query_head_dim"],
        sizes["pos_head_dim"],
    )
    module.load_state_dict(
        {k.removeprefix("state."): v for k, v in file.items() if k.startswith("state.")}
    )
    module.train(case in ("penalty", "nopos"))
    share_randomness(module, fixed_randomness(decision=0.05))
    module.balance_keys.prob = module.whiten_keys.prob = 0.0
    if case in ("penalty", "nopos"):
        with torch.no_grad():
            module.in_proj.weight.mul_(file["penalty.in.in_proj_weight_scale"])
    if case == "nopos":
        module.pos_emb_skip_rate = constant_rate(1.0)
        module.penalty_probability = 0.0
    padding = None if case == "none" else file["in.padding_mask"]
    blocked = file["in.attn_mask"] if case == "both" else None
    part = {k.removeprefix(f"{case}."): v for k, v in file.items() if k.startswith(f"{case}.")}
    frames = Frames(padding, blocked)
    check_module(
        close,
        module,
        part,
        lambda x: module(x, file["in.pos_emb"][0], frames),
        out_is_batch_first=False,
    )


def test_self_attention(golden, close):
    file, sizes = golden.tensors("mod.self_attention"), golden.about("mod.self_attention")["config"]
    module = SelfAttention(sizes["embed_dim"], sizes["num_heads"], sizes["value_head_dim"]).eval()
    check_with_weights(close, module, file)


def test_nonlin_attention(golden, close):
    file = golden.tensors("mod.nonlin_attention")
    module = NonlinAttention(24, 18).eval()
    check_with_weights(close, module, file)


def test_attend_splits_channels_over_heads():
    weights, values = torch.rand(2, 3, 5, 5), torch.randn(3, 5, 8)
    expected = torch.einsum("hnij,njhd->nihd", weights, values.view(3, 5, 2, 4)).flatten(2)
    assert torch.allclose(attend(weights, values), expected, atol=1e-6)


def test_feed_forward(golden, close):
    file, sizes = golden.tensors("mod.feedforward"), golden.about("mod.feedforward")["config"]
    module = FeedForward(sizes["embed_dim"], sizes["feedforward_dim"], Rate((0.0, 0.0))).eval()
    load(module, file)
    check_module(close, module, file, module)


def test_convolution(golden, close):
    file = golden.tensors("mod.convolution")
    module = ConvolutionModule(24, 7, causal=False).eval()
    load(module, file)
    frames = Frames(padding=file["in.padding_mask"])
    check_module(close, module, file, lambda x: module(x, frames))


@pytest.mark.parametrize("chunk", [-1, 4, 5, 7, 8, 12, 40])
def test_chunk_causal_convolution(golden, close, chunk):
    file = golden.tensors("mod.convolution_causal")
    module = ConvolutionModule(24, 7, causal=True).eval()
    load(module, file)
    frames = Frames(padding=file["in.padding_mask"], chunk_size=chunk)
    part = {
        k.removeprefix(f"chunk{chunk}."): v
        for k, v in file.items()
        if k.startswith(f"chunk{chunk}.")
    }
    check_module(close, module, part, lambda x: module(x, frames))


def test_resampling(golden, close):
    file = golden.tensors("mod.resampling")
    for case in sorted(
        {key.split(".in.x")[0] for key in file if key.startswith("down") and "up.in" not in key}
    ):
        if f"{case}.in.x" not in file:
            continue
        factor = file[f"{case}.bias"].numel()
        module = Downsample(factor)
        module.load_state_dict({"bias": file[f"{case}.bias"]})
        part = {k.removeprefix(f"{case}."): v for k, v in file.items() if k.startswith(f"{case}.")}
        check_module(close, module, part, module)
        close(
            upsample(part["up.in.x"].transpose(0, 1), factor).transpose(0, 1), part["up.out"], case
        )


def test_channels(golden, close):
    file = golden.tensors("mod.resampling")
    for channels in (5, 8, 11):
        close(convert_channels(file["channels.in.x"], channels), file[f"channels.out{channels}"])
    for case in "abcd":
        inputs = [file[key] for key in sorted(file) if key.startswith(f"pieces.{case}.in")]
        close(full_dimension_output(inputs), file[f"pieces.{case}.out"])


@pytest.mark.parametrize("case", ["eval", "train", "train_limit"])
def test_bypass(golden, close, fixed_randomness, case):
    file = {
        k.removeprefix(f"bypass.{case}."): v for k, v in golden.tensors("mod.resampling").items()
    }
    module = Bypass(6, constant_rate(0.5)).train(case != "eval")
    module.load_state_dict({"bypass_scale": file["bypass_scale"]})
    module.randomness = fixed_randomness(
        0.0 if case == "train_limit" else 1.0, tensors=[file["in.u"]]
    )
    set_batch_count(module, 4000.0)
    x0, x = (
        file[key].transpose(0, 1).clone().requires_grad_() for key in ("in.src_orig", "in.src")
    )
    out = module(x0, x)
    out.backward(file["in.grad_out"].transpose(0, 1))
    close(out.transpose(0, 1), file["out"])
    close(x0.grad.transpose(0, 1), file["grad.src_orig"])
    close(x.grad.transpose(0, 1), file["grad.src"])
    close(module.bypass_scale.grad, file["grad.param.bypass_scale"])


def test_feature_masks(golden):
    file = golden.tensors("mod.feature_masks")
    config, _ = golden.config("model_a")
    u1, u2 = (file[key].transpose(0, 1) for key in ("in.u1", "in.u2"))
    first = (u1 > 0.125).float()
    second = first * (u2 > 0.125).float()
    for stack, (dim, unmasked) in enumerate(zip(config.encoder_dim, config.encoder_unmasked_dim)):
        mask = feature_mask(first, second, dim, unmasked)
        assert torch.equal(mask.transpose(0, 1), file[f"out.stack{stack}"])


@pytest.mark.parametrize("case", ["eval", "const_attention"])
def test_encoder_layer(golden, close, fixed_randomness, case):
    file, sizes = golden.tensors("mod.encoder_layer"), golden.about("mod.encoder_layer")["config"]
    config = ZipformerConfig(
        downsampling_factor=1,
        encoder_dim=sizes["dim"],
        encoder_unmasked_dim=sizes["dim"],
        num_encoder_layers=1,
        num_heads=sizes["heads"],
        query_head_dim=sizes["dk"],
        pos_head_dim=sizes["dp"],
        value_head_dim=sizes["dv"],
        feedforward_dim=sizes["ff"],
        cnn_module_kernel=sizes["kernel"],
        pos_dim=sizes["pos_dim"],
    )
    layer = EncoderLayer(config, 0, Rate((0.0, 0.0))).train(case != "eval")
    load(layer, file)
    zero_rates(layer)
    if case == "const_attention":
        layer.const_attention_rate = constant_rate(2.0)
        share_randomness(layer, fixed_randomness(decision=1.0))
    frames = Frames(padding=file["in.padding_mask"])
    part = {
        k.removeprefix(f"{case}."): v for k, v in file.items() if k.startswith((f"{case}.", "in.x"))
    }
    check_module(close, layer, part, lambda x: layer(x, file["in.pos_emb"][0], frames))


def test_tagging_head(golden, close):
    file = golden.tensors("mod.tagging_head")
    head = TaggingHead(9, 5).eval()
    head.load_state_dict(
        {"1.weight": file["state.classifier.1.weight"], "1.bias": file["state.classifier.1.bias"]}
    )
    close(head(file["in.encoder_out"], file["in.lens"]), file["out.logits"])


def load(module, file):
    module.load_state_dict(
        {k.removeprefix("state."): v for k, v in file.items() if k.startswith("state.")}
    )


def check_with_weights(close, module, file):
    """A module called with attention weights, whose gradient is checked too."""
    load(module, file)
    weights = file["in.attn_weights"].clone().requires_grad_()
    check_module(close, module, file, lambda x: module(x, weights))
    close(weights.grad, file["grad.attn_weights"], "gradient of the weights")


def check_module(close, module, file, forward, out_is_batch_first=True):
    """Output, gradient of x and gradients of the parameters; x and most outputs turn from (T, N, C)
    to (N, T, C).
    """
    x = file["in.x"].transpose(0, 1).clone().requires_grad_()
    out, grad = forward(x), file["in.grad_out"]
    out.backward(grad.transpose(0, 1) if out_is_batch_first else grad)
    close(out.transpose(0, 1) if out_is_batch_first else out, file["out"], "output")
    close(x.grad.transpose(0, 1), file["grad.x"], "gradient of x")
    for key, parameter in module.named_parameters():
        if f"grad.param.{key}" in file:
            close(parameter.grad, file[f"grad.param.{key}"], key)
