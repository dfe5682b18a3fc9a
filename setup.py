"""Puts the workflow into the package: `tessera init` copies it out again. All else is said in pyproject.toml."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithWorkflow(build_py):
    """Copies the Snakefile, rules, scripts, profiles and configs to `tessera/project`; not where it is editable."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            project = Path(self.build_lib, "tessera", "project")
            shutil.rmtree(project, ignore_errors=True)
            runpy.run_path(str(ROOT / "src/tessera/project.py"))["copy_parts"](ROOT, project)


setup(cmdclass={"build_py": BuildWithWorkflow})
