"""The environment that shared/environment.sh makes."""

import subprocess
import sys


def test_a_script_beside_the_checkout_finds_the_package(repository, tmp_path):
    """A folder of the package's name, as a clone has it, is no package and must not hide it."""
    (tmp_path / "captionstew").symlink_to(repository)
    script = tmp_path / "three_lines.py"
    script.write_text("import captionstew\nprint(captionstew.load_encoder)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
