# Sourced by ./run and ./test: makes .venv when it is missing or out of date, and activates it.
# Usage: make_environment EXTRAS   (e.g. "onnx" or "onnx,slurm,dev"); called from the repository's root.

find_python() {
    for name in python3.13 python3.12 python3.11 python3 python; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            command -v "$name"
            return 0
        fi
    done
    found=$(python3 --version 2>/dev/null || echo "no python3")
    echo "ERROR: Tessera needs Python 3.11, 3.12 or 3.13; found $found. Install one and try again." >&2
    return 1
}

# Where the workflow was copied out of an installed package: the environment that holds it, which must be active.
use_environment() {
    if ! python -c 'import tessera, snakemake' 2>/dev/null; then
        echo "ERROR: the active Python has no tessera; activate the environment in which tessera-rec is installed" >&2
        return 1
    fi
    keep_compiled
    spare_the_kernel
}

# Every job starts a Python; where an image forbids compiled modules, each would compile the library anew.
keep_compiled() {
    unset PYTHONDONTWRITEBYTECODE
}

# Waiting threads sleep: they would otherwise spin against the other jobs. Memory comes in large pages, and what is freed
# is kept for the next use: in a virtual machine above all, each fresh page costs (workflow/rules/start.smk).
spare_the_kernel() {
    OMP_WAIT_POLICY=PASSIVE
    GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=268435456:glibc.malloc.mmap_threshold=67108864}
    export OMP_WAIT_POLICY GLIBC_TUNABLES
}

make_environment() {
    extras=$1
    if command -v sha256sum >/dev/null 2>&1; then digest=sha256sum; else digest="shasum -a 256"; fi
    wanted=$(cat pyproject.toml constraints.txt | $digest | cut -c1-64)
    # An environment made for more extras serves fewer: the stamp lists those that are installed.
    have=$(cat .venv/tessera-stamp 2>/dev/null || true)
    complete=yes
    for extra in $(echo "$extras" | tr ',' ' '); do
        case " $have " in *" $extra "*) ;; *) complete=no ;; esac
    done
    case "$have" in "$wanted "*) ;; *) complete=no ;; esac
    [ -x .venv/bin/python ] || complete=no
    if [ "$complete" = no ]; then
        if [ ! -x .venv/bin/python ]; then
            python=$(find_python) || return 1
            echo "Making .venv with $python (a few minutes the first time) ..." >&2
            if ! "$python" -m venv .venv; then
                rm -rf .venv
                echo "ERROR: $python cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv" >&2
                return 1
            fi
        fi
        echo "Installing the pinned packages ..." >&2
        rm -f .venv/tessera-stamp
        # Not compiled here, which takes longer than all else and mostly is of modules that nobody imports.
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 10 --no-compile \
            --constraint constraints.txt --editable ".[$extras]" || {
            echo "ERROR: the installation failed (see above); run the command again to go on" >&2
            return 1
        }
        case "$have" in "$wanted "*) kept=${have#"$wanted"} ;; *) kept= ;; esac
        echo "$wanted $kept $(echo "$extras" | tr ',' ' ')" >.venv/tessera-stamp
    fi
    grep -qF -- "$PWD/.venv" .venv/pyvenv.cfg || .venv/bin/python tools/moved.py
    PATH="$PWD/.venv/bin:$PATH"
    VIRTUAL_ENV="$PWD/.venv"
    keep_compiled
    spare_the_kernel
    # The library of this folder, whatever folder the environment was made in.
    PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
    export PATH VIRTUAL_ENV PYTHONPATH
}
