"""The environment that shared/environment.sh makes."""

import subprocess
import sys

import pytest

# A project that installs itself as an empty wheel, so that no package index is asked.
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "nothing"
version = "0"
"""
BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "nothing-0-py3-none-any.whl"
    about = {
        "METADATA": "Metadata-Version: 2.1\\nName: nothing\\nVersion: 0\\n",
        "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        for file, text in about.items():
            wheel.writestr(f"nothing-0.dist-info/{file}", text)
    return name
"""
INSTALL = """
set -euo pipefail
. {repository}/shared/log.sh
. {repository}/shared/one_run.sh
. {repository}/shared/environment.sh
install_torch() {{ :; }}
ensure_environment {checkout}
python -c 'import sys; print(sys.prefix)'
"""


def test_a_script_beside_the_checkout_finds_the_package(repository, tmp_path):
    """A folder of the package's name, as a clone has it, is no package and must not hide it."""
    (tmp_path / "captionstew").symlink_to(repository)
    script = tmp_path / "three_lines.py"
    script.write_text("import captionstew\nprint(captionstew.load_encoder)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["before pip", "between packages"])
def test_a_killed_installation_is_begun_again(repository, tmp_path, killed):
    checkout = tmp_path / "a b'c"
    (checkout / "shared").mkdir(parents=True)
    (checkout / "shared" / "environment.sh").touch()
    (checkout / "requirements.txt").touch()
    (checkout / "pyproject.toml").write_text(PROJECT)
    (checkout / "backend.py").write_text(BACKEND)
    venv = checkout / ".venv"
    options = ["--without-pip"] if killed == "before pip" else []
    subprocess.run([sys.executable, "-m", "venv", *options, venv], check=True)
    if killed == "between packages":
        (venv / ".installing").touch()
        (venv / "half a package").touch()
    script = INSTALL.format(repository=repository, checkout=f'"{checkout}"')
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == str(venv)
    assert (venv / ".installed").is_file() and not (venv / ".installing").exists()
    assert not (venv / "half a package").exists()
