"""The conda environment names what the package needs; what `./run` and `./test` set."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
# names that differ between the two registries; Snakemake itself runs outside of the environment
CONDA_NAMES = {"torch": "pytorch", "isal": "python-isal"}


def test_the_conda_environment_has_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", text)[0] for text in project["dependencies"]} - {"snakemake"}
    conda = yaml.safe_load((ROOT / "workflow/envs/tessera.yaml").read_text())["dependencies"]
    present = {text.split()[0] for text in conda if isinstance(text, str)}
    assert {CONDA_NAMES.get(name, name) for name in needed} <= present


def test_modules_are_compiled_once_for_all_jobs() -> None:
    """Images of containers often say `PYTHONDONTWRITEBYTECODE=1`."""
    program = ". tools/environment.sh && use_environment && python -c 'import sys; print(sys.dont_write_bytecode)'"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(["sh", "-c", program], cwd=ROOT, env=given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
