"""What the judge is asked: our wording, a file of one's own, or AIR-Bench's own.

The benchmark's text is not ours to ship: it is read, never run, out of a user's copy of its
`score_chat.py` (https://github.com/OFA-Sys/AIR-Bench).
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from captionstew.errors import UserError

OURS, AIRBENCH = "ours", "airbench"
NAMES = frozenset({"description", "question", "first", "second"})
PLACES = {  # where the benchmark's script puts what
    "XAudioX": "$description",
    "XQuestionX": "$question",
    "XAssistant1X": "$first",
    "XAssistant2X": "$second",
}
SCRIPT = "score_chat.py"
HOME = "https://github.com/OFA-Sys/AIR-Bench"

JUDGE_PROMPT = Template("""\
You compare the answers of two assistants to a question about a recording, carefully and without \
favour.

[Detailed Audio Description]
$description

[Question]
$question

[The Start of Assistant 1s Answer]
$first
[The End of Assistant 1s Answer]

[The Start of Assistant 2s Answer]
$second
[The End of Assistant 2s Answer]

[System]
Judge how helpful, relevant, accurate and comprehensive each answer is, given the description of \
the recording. Rate \
each assistant from 1 (worst) to 10 (best). Reply with one line that holds nothing but the two \
ratings, Assistant 1's \
first and Assistant 2's second, as whole numbers separated by one space.""")


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt and how it is sampled.

    Attributes:
      name: `ours`, `airbench`, or the file's.
      template: with $description, $question, $first and $second; the benchmark asks twice, with the
          reference's answer first and with the model's.
    """

    name: str
    template: Template
    temperature: float = 0.0
    max_tokens: int = 1024


def judge_prompt(asked: str, airbench_dir: Path | None = None) -> JudgePrompt:
    """The prompt called `ours` or `airbench`, or that of a file.

    Raises:
      UserError: no copy of the benchmark is named, or its script is another than this knows.
      ValueError: a file of one's own has not exactly the four names, each once or more.
    """
    if asked == AIRBENCH:
        if airbench_dir is None:
            raise UserError(f"--judge-prompt airbench needs --airbench-dir, a copy of {HOME}")
        return read_airbench(airbench_dir)
    if asked == OURS:
        return JudgePrompt(OURS, JUDGE_PROMPT)
    path = Path(asked)
    template = Template(path.read_text(encoding="utf-8"))
    if not template.is_valid() or set(template.get_identifiers()) != NAMES:
        names = ", ".join(f"${name}" for name in sorted(NAMES))
        raise ValueError(
            f"{path}: a prompt has exactly {names} in it, and any other dollar sign doubled"
        )
    return JudgePrompt(path.name, template)


def read_airbench(folder: Path) -> JudgePrompt:
    """Prompt, temperature and length of the replies from the benchmark's script, which is parsed
    and not run.

    The script raises the temperature to 2.0 for a random half of the questions; here all are asked
    with its setting.

    Raises:
      UserError: the script is not there or not of the known form.
    """
    path = folder / SCRIPT
    if not path.is_file():
        raise UserError(f"{path} is not there; --airbench-dir is a copy of {HOME}")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not the benchmark's script ({error}); see {HOME}") from None
    prompts = [text for text in _texts(tree) if all(place in text for place in PLACES)]
    first = {answer for place, answer in _replaced(tree) if place == "XAssistant1X"}
    settings = _defaults(tree)
    known = {"temperature", "max_tokens"} <= settings.keys()
    if len(prompts) != 1 or first != {"answer_gt"} or not known:
        raise UserError(
            f"{path}: of another form than the benchmark's script had in 2024: its prompt with"
            f" {', '.join(PLACES)}, the reference as assistant 1, --temperature and --max-tokens;"
            " give the prompt as a file: --judge-prompt FILE"
        )
    text = prompts[0].replace("$", "$$")
    for place, name in PLACES.items():
        text = text.replace(place, name)
    return JudgePrompt(
        AIRBENCH, Template(text), float(settings["temperature"]), int(settings["max_tokens"])
    )


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _replaced(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(text, variable) of every `.replace("text", variable)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="replace"),
                args=[ast.Constant(value=str(place)), ast.Name(id=answer)],
            ):
                yield place, answer


def _defaults(tree: ast.AST) -> dict[str, float]:
    """Flag of the script's command line -> its default, of those with a number."""
    defaults = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if keyword.arg == "default" and isinstance(value, int | float):
                    defaults[str(names[-1]).lstrip("-").replace("-", "_")] = value
    return defaults
