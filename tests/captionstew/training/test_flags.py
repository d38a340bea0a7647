"""Flags: values, contradictions, one line and exit status 2."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from captionstew.errors import UserError
from captionstew.flags import fixed, flag, flags_to_dict, parse_flags
from captionstew.training.flags import DataFlags, EncoderFlags, TrainingFlags
from zipformer import ZipformerConfig


@dataclass(frozen=True)
class Flags(TrainingFlags, DataFlags, EncoderFlags):
    text_tower: str = flag("small", "with 100 % of the text")

    def check(self):
        if self.text_tower == "none":
            raise ValueError("--text-tower none makes no sense")


def parse(*argv):
    return parse_flags(Flags, "A recipe.", list(argv))


@pytest.mark.parametrize("group", [TrainingFlags, DataFlags, EncoderFlags, Flags])
def test_every_group_parses_its_defaults(group):
    flags = parse_flags(group, None, [])
    assert flags == group()
    assert all(item.metadata["help"] for item in dataclasses.fields(group))


def test_values_have_the_types_of_their_fields():
    flags = parse(
        "--exp-dir",
        "a/b",
        "--base-lr",
        "0.01",
        "--use-bf16",
        "TRUE",
        "--resume",
        "yes",
        "--num-epochs",
        "7",
    )
    assert flags.exp_dir == Path("a/b") and flags.base_lr == 0.01 and flags.num_epochs == 7
    assert flags.use_bf16 is True and flags.resume is True and flags.tensorboard is True
    assert (
        parse("--feature-store", "x").feature_store == Path("x") and parse().feature_store is None
    )
    assert parse("--tensorboard", "0").tensorboard is False


def test_flags_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse().seed = 3


@pytest.mark.parametrize(
    "argv, message",
    [
        (
            ["--use-fp16", "true", "--use-bf16", "true"],
            "--use-fp16 and --use-bf16 exclude each other",
        ),
        (["--use-fp16", "true", "--device", "cpu"], "--use-fp16 needs a GPU"),
        (["--accum-grad", "0"], "--accum-grad must be positive, not 0"),
        (["--resume", "true", "--start-batch", "10"], "--resume true picks the checkpoint itself"),
        (["--resume", "true", "--start-epoch", "2"], "--resume true picks the checkpoint itself"),
        (["--start-epoch", "2", "--start-batch", "10"], "--start-batch and --start-epoch exclude"),
        (["--world-size", "0"], "--world-size must be positive, not 0"),
        (["--average-period", "-1"], "--average-period must be positive"),
        (["--save-every-n", "0"], "--save-every-n must be positive"),
        (["--base-lr", "0"], "--base-lr must be positive"),
        (["--base-lr", "nan"], "--base-lr must be positive"),
        (["--max-duration", "0"], "--max-duration must be positive"),
        (["--max-caption-tokens", "1"], "--max-caption-tokens counts <s> and </s>: 1 leave no"),
        (["--max-caption-tokens", "2"], "--max-caption-tokens counts <s> and </s>: 2 leave no"),
        (["--num-buckets", "0"], "--num-buckets 0, --num-workers 2 and --valid-clips 2000 must be"),
        (["--num-workers", "-1"], "--num-workers -1"),
        (["--valid-clips", "0"], "--valid-clips 0 must be at least 1, 0 and 1"),
        (["--augment-speeds", "1.0,fast"], "--augment-speeds"),
        (["--augment-speeds", "0"], "--augment-speeds"),
        (["--encoder-preset", "huge"], "unknown encoder preset 'huge'"),
        (["--encoder-dim", "1,x"], "--encoder-dim takes comma-separated integers, not '1,x'"),
        (["--encoder-dim", "64,64"], "encoder_dim has 2 entries for 6 stacks"),
        (["--text-tower", "none"], "--text-tower none makes no sense"),
        (["--no-such-flag", "1"], "unrecognized arguments: --no-such-flag 1"),
        (["--num-epoch", "1"], "unrecognized arguments: --num-epoch 1"),
        (["--use-bf16", "maybe"], "true or false expected, not 'maybe'"),
        (["--use-bf16"], "expected one argument"),
        (["--seed", "x"], "invalid int value: 'x'"),
        (["--resume-mode", "roughly"], "invalid choice: 'roughly'"),
    ],
)
def test_what_cannot_be_meant_ends_with_one_line_and_status_2(argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(*argv)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "error: " in line and message in line and line.endswith("(see --help)")


def test_float16_needs_a_gpu_that_is_there(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        parse("--use-fp16", "true", "--device", "auto")
    assert "--use-fp16 needs a GPU; on a CPU use --use-bf16 true" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert parse("--use-fp16", "true").use_fp16


def test_help_shows_defaults_and_percent_signs(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "A recipe." in text and "with 100 % of the text (default: small)" in text
    assert "(default: 0.045)" in text and "(default: false)" in text


def test_json_round_trip():
    flags = parse(
        "--exp-dir", "a b", "--use-bf16", "true", "--feedforward-dim", "96,128,160,192,160,128"
    )
    content = json.loads(json.dumps(flags_to_dict(flags)))
    argv = [
        word
        for name, value in content.items()
        if value is not None
        for word in (
            f"--{name.replace('_', '-')}",
            str(value).lower() if isinstance(value, bool) else str(value),
        )
    ]
    assert parse(*argv) == flags


def test_encoder_flags_change_the_preset():
    flags = parse(
        "--encoder-preset",
        "mini",
        "--feedforward-dim",
        "64",
        "--pos-dim",
        "24",
        "--frontend-channels",
        "2,4,8",
    )
    config = flags.encoder_config()
    assert config == ZipformerConfig.preset(
        "mini", feedforward_dim=64, pos_dim=24, frontend_channels=(2, 4, 8)
    )
    assert parse("--encoder-preset", "mini").encoder_config() == ZipformerConfig.preset("mini")
    assert parse("--batch-invariant", "true").encoder_config().batch_invariant


@dataclasses.dataclass(frozen=True)
class Modes:
    warp: bool = flag(True, "")
    size: int = flag(3, "", only_with="warp")
    kind: str = flag("a", "", choices=("a", "b", "c"))
    depth: int = flag(1, "", only_with="kind=b|c")
    file: str = flag("", "")
    epoch: int = flag(1, "", only_with=("file=", "kind=a"))
    hidden: int = fixed(7)


@pytest.mark.parametrize(
    "given, message",
    [
        ("--warp false --size 4", "--size has no effect with --warp false"),
        ("--warp false --size 3", "--size has no effect with --warp false"),
        ("--depth 2", "--depth has no effect with --kind a"),
        ("--file x --epoch 2", "--epoch has no effect with --file x"),
        ("--kind b --epoch 2", "--epoch has no effect with --kind b"),
        ("--hidden 8", "unrecognized arguments: --hidden 8"),
    ],
)
def test_flags_without_effect_are_refused_by_name(given, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_flags(Modes, None, given.split())
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_flags_with_effect_are_taken():
    assert parse_flags(Modes, None, ["--warp", "false"]) == Modes(warp=False)
    flags = parse_flags(Modes, None, ["--kind", "c", "--depth", "2", "--size", "5"])
    assert (flags.depth, flags.size, flags.hidden) == (2, 5, 7)


def test_a_folder_that_cannot_be_written_is_refused_before_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"exp: cannot be written, .*file is no folder"):
        parse_flags(TrainingFlags, "", ["--exp-dir", str(tmp_path / "file" / "exp")])
