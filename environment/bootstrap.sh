#!/usr/bin/env bash
# Makes .venv/, the one environment of this checkout: PyTorch, ContextLM (editable) and the tools of its tests.
#
#     bash environment/bootstrap.sh          (what `make environment`, `make quickstart` and `make test` run first)
#     PYTHON=/path/to/python3 bash environment/bootstrap.sh
#
# A torch that the python at hand can import is used, never replaced. Otherwise PyTorch is installed: its CPU build
# without an NVIDIA driver, its default build with one. A finished environment is recognised by a stamp, so running
# this again costs nothing. Needs bash, Python 3.10 or newer, and pip or ensurepip. Read next: pyproject.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$(pwd -P)
venv_python="$root/.venv/bin/python"
log="$root/.venv/bootstrap.log"
stamp_file="$root/.venv/contextlm.stamp"         # written last: a finished environment
unfinished="$root/.venv/contextlm.unfinished"    # there while an installation runs, or when one was killed
cpu_wheels=https://download.pytorch.org/whl/cpu
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0

say() { echo "environment: $*"; }

fail() {  # fail "what" "remedy"
    if [ -s "$log" ]; then
        echo "--- the last lines of $log" >&2
        tail -n 20 "$log" >&2
        echo "---" >&2
    fi
    echo "error: $1" >&2
    echo "       $2" >&2
    exit 1
}

run() {  # run "what" command...: the output goes to the log
    say "$1"
    local what=$1
    shift
    "$@" >>"$log" 2>&1 || fail "this failed: $what" \
        "If the log speaks of the network or of a full disk, mend that. Then run the same command again."
}

# The path is part of the stamp because scripts in .venv/bin hold absolute paths: a copied checkout starts anew.
expected_stamp() {
    cat pyproject.toml environment/constraints.txt environment/bootstrap.sh | cksum
    echo "$root"
}

is_finished() {
    [ -f "$stamp_file" ] && [ ! -f "$unfinished" ] && [ "$(cat "$stamp_file")" = "$(expected_stamp)" ] &&
        [ -x .venv/bin/torchrun ] && "$venv_python" -c "" 2>/dev/null
}

version_between() {  # version_between PYTHON LOW HIGH: does it run, and is its minor version in the range?
    "$1" -c "import sys; sys.exit(not (3, $2) <= sys.version_info[:2] <= (3, $3))" >/dev/null 2>&1
}

find_python() {
    local candidate
    # Up to 3.13 megatron-core comes ready built; a later Python is taken only where there is no other.
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
        if version_between "$candidate" 10 13; then command -v "$candidate"; return; fi
    done
    if version_between "${PYTHON:-python3}" 14 99; then command -v "${PYTHON:-python3}"; return; fi
    fail "ContextLM needs Python 3.10 or newer; ${PYTHON:-python3} here is $("${PYTHON:-python3}" --version 2>&1 || true)" \
        "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: PYTHON=/path/to/python3 make ..."
}

usable_torch() {  # usable_torch PYTHON: the version of the torch it imports, or nothing
    "$1" -c 'import torch
major, minor = torch.__version__.split(".")[:2]
print(torch.__version__ if (int(major), int(minor)) >= (2, 6) else "")' 2>/dev/null || true
}

# Not torch.__version__: a wheel's own name says 2.11.0 where the library says 2.11.0+cu130, and pip compares names.
packaged_version() { "$venv_python" -c 'import importlib.metadata; print(importlib.metadata.version("torch"))'; }

make_venv() {  # make_venv PYTHON [--system-site-packages]
    local python=$1
    shift
    "$python" -m venv "$@" .venv && "$venv_python" -m pip --version && return
    # Debian's python3 without python3-venv has no ensurepip. --target also works with an old pip and where
    # the system's Python is marked as externally managed (PEP 668): nothing outside .venv is written.
    "$python" -m venv --without-pip "$@" .venv &&
        "$python" -m pip install --ignore-installed --target "$(site_packages)" pip &&
        "$venv_python" -m pip --version
}

site_packages() { "$venv_python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

has_nvidia_driver() { [ -e /proc/driver/nvidia/version ] || nvidia-smi -L >/dev/null 2>&1; }

cpu_wheels_answer() {  # within 3 s, name look-up included, which urlopen's own timeout leaves out
    "$venv_python" - "$cpu_wheels/torch/" <<'PYTHON' >/dev/null 2>&1
import os, sys, threading, urllib.request
deadline = threading.Timer(3, os._exit, (1,))
deadline.daemon = True
deadline.start()
urllib.request.urlopen(sys.argv[1], timeout=3).read(1)
PYTHON
}

install_torch() {
    if has_nvidia_driver; then
        run "PyTorch with CUDA (2 to 3 GB, some minutes)" "$venv_python" -m pip install "torch>=2.6"
    elif cpu_wheels_answer; then
        run "PyTorch for CPU, from $cpu_wheels (200 MB)" \
            "$venv_python" -m pip install --index-url "$cpu_wheels" -c environment/constraints.txt torch
    else
        run "PyTorch, from the default package index (some minutes)" \
            "$venv_python" -m pip install -c environment/constraints.txt torch
    fi
}

install_extras() {  # what is not there for this Python or in this index is done without
    local extra
    say "faster preprocessing, Hub data, ray and lm_eval (a minute or two)"
    "$venv_python" -m pip install -c .venv/torch.txt -e ".[data,hub,ray,eval]" >>"$log" 2>&1 && return
    for extra in data hub ray eval; do
        "$venv_python" -m pip install -c .venv/torch.txt -e ".[$extra]" >>"$log" 2>&1 ||
            say "note: the extra '$extra' cannot be installed here ($log); what needs it says so, and its tests are skipped"
    done
}

write_torchrun() {  # a reused torch has its torchrun elsewhere, bound to another interpreter
    [ -x .venv/bin/torchrun ] && return
    printf '#!/bin/sh\nexec "%s" -m torch.distributed.run "$@"\n' "$venv_python" >.venv/bin/torchrun
    chmod +x .venv/bin/torchrun
}

main() {
    is_finished && return
    local started=$SECONDS python reused="" held
    python=$(find_python)

    if [ -f "$unfinished" ] && kill -0 "$(cat "$unfinished")" 2>/dev/null; then
        fail "process $(cat "$unfinished") is installing into $root/.venv" \
            "Wait for it. If it is no installation, remove $unfinished and run the same command again."
    fi
    if [ -f "$unfinished" ]; then
        say "an earlier installation was not finished; starting anew"
        rm -rf .venv
    elif [ -d .venv ] && ! { grep -qF "$root/.venv" .venv/bin/activate && version_between "$venv_python" 10 99 &&
        "$venv_python" -m pip --version; } >/dev/null 2>&1; then
        say ".venv does not work here (moved, or its python is gone); making a new one"
        rm -rf .venv
    fi

    if [ ! -d .venv ]; then
        reused=$(usable_torch "$python")
        say "$("$python" --version) at $python${reused:+, with its own torch $reused}"
        mkdir .venv && echo $$ >"$unfinished"
        run "virtual environment in .venv" make_venv "$python" ${reused:+--system-site-packages}
        if [ -n "$reused" ] && [ -z "$(usable_torch "$venv_python")" ]; then
            # The python at hand is itself a virtual environment: --system-site-packages skips its packages.
            "$python" -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))' \
                >"$(site_packages)/torch_at_hand.pth"
        fi
    fi
    echo $$ >"$unfinished"

    [ -n "$(usable_torch "$venv_python")" ] || install_torch
    held=$(usable_torch "$venv_python")
    [ -n "$held" ] || fail "torch cannot be imported by $venv_python" \
        "See what it says: $venv_python -c 'import torch'. Remove .venv to start anew."
    # Nothing that is installed from here on may bring another torch, now or later.
    echo "torch==$(packaged_version)" >.venv/torch.txt
    # NVIDIA's containers pin every package of the image here, ours too; only their torch matters to us.
    [ "${PIP_CONSTRAINT:-}" != /etc/pip/constraint.txt ] || unset PIP_CONSTRAINT
    run "ContextLM and its packages, torch stays $held (a minute or two)" \
        "$venv_python" -m pip install -c .venv/torch.txt -e ".[dev,hf]"
    install_extras
    write_torchrun
    run "first import" "$venv_python" -c "import torch, megatron.core, contextlm"
    if has_nvidia_driver && ! "$venv_python" -c "import torch; raise SystemExit(not torch.cuda.is_available())"; then
        say "note: there is an NVIDIA driver, but torch $held cannot use it, so everything will run on the CPU;"
        say "      install a torch with CUDA for this driver, remove .venv and run the same command again"
    fi
    expected_stamp >"$stamp_file.new"
    mv "$stamp_file.new" "$stamp_file"
    rm -f "$unfinished"
    say "ready in $((SECONDS - started)) s (.venv, torch $held)"
}

main
