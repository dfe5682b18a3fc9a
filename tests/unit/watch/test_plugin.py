"""The logger plugin, which Snakemake imports whenever it starts."""

import subprocess
import sys


def test_it_brings_no_library() -> None:
    """The Snakefile says which one is meant; one that is imported before would hide edits of the folder's own code."""
    code = "import sys, snakemake_logger_plugin_tessera; print([n for n in sys.modules if n.startswith('tessera')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
