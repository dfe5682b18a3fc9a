# What is settled before the config is read.
import os
import shlex
import sys

# Snakemake calls Python by its path, unquoted: where a shell would cut the path, by its name.
if shlex.quote(sys.executable) != sys.executable:
    os.environ.update(PATH=os.pathsep.join([os.path.dirname(sys.executable), *os.get_exec_path()]))
    sys.executable = os.path.basename(sys.executable)


def refuse(error):
    """End before anything runs, with what is wrong with the config."""
    sys.exit(framed(f"ERROR: this config cannot be run:\n{error}"))
