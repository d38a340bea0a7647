"""The commands that a README shows: programs and flags exist, and those for a small machine run as
they are written.

All but `./run.sh`, `./run.sh --study mini` and `./test.sh`, which take too long.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

REPOSITORY = Path(__file__).resolve().parents[1]
READMES = [
    Path("README.md"),
    *sorted(path.relative_to(REPOSITORY) for path in REPOSITORY.glob("egs/*/README.md")),
]
PROGRAM = re.compile(r"(\S+\.(py|sh)|python|captionstew)$")
STARTERS = {"torchrun", "sbatch"}  # their own options end where a program of ours begins


def blocks(readme, language):
    """Texts of a README's fenced blocks in one language."""
    text = (REPOSITORY / readme).read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def block(readme, beginning):
    """The one block of shell that begins with these words."""
    (found,) = (text for text in blocks(readme, "bash") if text.startswith(beginning))
    return found


def commands(readme):
    """Lines of a README that call a program of ours, with variables filled in, starters left
    out.
    """
    for text in blocks(readme, "bash"):
        variables = {}
        for line in text.replace("\\\n", " ").splitlines():
            if assigned := re.match(r'(\w+)="(.*)"$', line):
                variables[assigned[1]] = assigned[2]
                continue
            line = re.sub(r"\$(\w+)", lambda match, known=variables: known[match[1]], line)
            words = line.split()
            if words and words[0] in STARTERS:
                start = max(
                    number for number, word in enumerate(words) if re.search(r"train\.py$", word)
                )
                line = " ".join(words[start:])
            if words and PROGRAM.search(line.split()[0]):
                yield line


@pytest.mark.slow
@pytest.mark.parametrize("readme", READMES, ids=str)
def test_every_command_names_a_program_and_flags_that_exist(readme, takes_flags):
    lines = list(commands(readme))
    assert lines
    for line in lines:
        at_the_top = line.startswith(("./run.sh", "egs/"))
        takes_flags(line, REPOSITORY if at_the_top else REPOSITORY / readme.parent)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository's files with a small mini corpus of 90 clips in data/mini."""
    environment = Path(sys.prefix)
    if not (environment / ".installed").is_file():
        pytest.skip("README commands run in the environment that ./test.sh makes")
    top = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("README commands run in a copy of a git checkout")
    for name in listed.stdout.splitlines():
        if (REPOSITORY / name).exists():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, top / name, follow_symlinks=False)
    (top / ".venv").symlink_to(environment)
    bash(top, "python local/split_mini.py --output-dir data/mini --num-clips 90")
    bash(
        top,
        "python local/train_bpe.py --manifest data/mini/cuts_train.jsonl --output"
        " data/mini/bpe.model --vocab-size 300",
    )
    return top


def bash(folder, script, top=None):
    """Runs a block of shell in a folder of the checkout as a user would; returns what it prints on
    stdout.
    """
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(top or folder),
        "VIRTUAL_ENV": sys.prefix,
    }
    environment["PATH"] = f"{sys.prefix}/bin:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def five_systems(checkout):
    """The folder of the recipe after the block that trains five systems."""
    recipe = checkout / "egs" / "captionstew"
    bash(recipe, block("egs/captionstew/README.md", 'mini="--manifest-dir'), checkout)
    return recipe


@pytest.mark.slow
def test_the_five_systems_train_and_are_scored(checkout, five_systems):
    bash(
        five_systems,
        block("egs/captionstew/README.md", "tagging/decode.py --exp-dir exp/zipformer-aec"),
        checkout,
    )
    assert list(five_systems.glob("exp/zipformer-aec/results/tagging_*-test.json"))
    assert (five_systems / "exp/contrastive-init/results/retrieval-test-strict.json").is_file()
    assert (five_systems / "exp/captioning-init/results/captioning-test-beam4.json").is_file()


@pytest.mark.slow
def test_trained_models_are_used(checkout, five_systems):
    for objective in ("contrastive", "captioning"):
        (checkout / "exp" / objective).mkdir(parents=True)
        models = f"--exp-dir exp/{objective}-scratch --epoch 24 --avg 4"
        place = f"--output ../../exp/{objective}/pretrained.pt"
        bash(five_systems, f"local/average_checkpoints.py {models} {place}", checkout)
    clips = sorted((checkout / "data/mini").rglob("*.flac"))
    (checkout / "recordings").mkdir()
    for clip in clips[:5]:
        shutil.copy(clip, checkout / "recordings")
    for name in ("dog.wav", "rain.flac"):
        soundfile.write(checkout / name, *soundfile.read(clips[0]))
    printed = bash(checkout, block("README.md", "captionstew embed"))
    assert (checkout / "vectors.parquet").is_file() and (
        checkout / "recordings.index.npz"
    ).is_file()
    assert len(printed.splitlines()) > 8
    (checkout / "three_lines.py").write_text("\n".join(blocks("README.md", "python")))
    assert "dog.wav" in bash(checkout, "python three_lines.py")
    bash(checkout, block("README.md", "captionstew export"))
    assert (checkout / "encoder/config.json").is_file() and (checkout / "encoder.onnx").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "readme, beginning, made",
    [
        (
            "egs/eval_probe/README.md",
            "./train.py --encoder logmel",
            "exp/mini/results/probe_average-test.json",
        ),
        (
            "egs/eval_lit/README.md",
            "local/make_text_models.py",
            "exp/captioning/mini/results/lit_captioning_*-beam4.json",
        ),
        ("egs/eval_qa/README.md", "./prepare.sh --corpus mini", "exp/mini/answers/test.json"),
    ],
)
def test_an_evaluation_runs_at_small_scale(checkout, readme, beginning, made):
    recipe = checkout / Path(readme).parent
    bash(recipe, block(readme, beginning), checkout)
    assert list(recipe.glob(made))


@pytest.mark.slow
def test_the_study_prints_its_commands(checkout):
    printed = bash(checkout, block("egs/study/README.md", "./run.sh --study mini").splitlines()[0])
    assert "egs/captionstew/contrastive/train.py" in printed
