"""The image without Docker: what its Dockerfile says, what is sent to it, and its CPU stage carried out for real."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.cli.dockerfile import Context, Instruction, parse, stages
from tests.cli.image_root import ImageRoot

CHECKOUT = Path(__file__).resolve().parents[2]
TEXT = (CHECKOUT / "Dockerfile").read_text()
MAX_CONTEXT_BYTES = 5_000_000
DEBIAN = "http://deb.debian.org/debian"


def image(stage: int) -> list[Instruction]:
    """The instructions of a stage: 0 is for a CPU, the last one for GPUs."""
    return stages(parse(TEXT))[stage]


def test_a_stage_for_a_cpu_and_one_on_nvidias_image():
    cpu, gpu = stages(parse(TEXT))
    assert cpu[0].rest == "debian:bookworm-slim AS cpu"
    assert gpu[0].rest == "${BASE}"  # the last one is what `docker build .` makes
    base = parse(TEXT)[0]
    assert re.fullmatch(r"BASE=nvcr\.io/nvidia/pytorch:\d\d\.\d\d-py3", base.rest)
    # After what each needs of its own they are the same.
    begin = "COPY --chown=contextlm:contextlm pyproject.toml LICENSE ./"
    tails = [[f"{each.name} {each.rest}" for each in stage] for stage in (cpu, gpu)]
    assert tails[0][tails[0].index(begin) :] == tails[1][tails[1].index(begin) :]


@pytest.mark.parametrize("stage", [0, 1])
def test_a_stage_is_sound(stage):
    instructions = image(stage)
    users = [each.rest for each in instructions if each.name == "USER"]
    assert users and all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users)  # by number, and never root
    names = [each.name for each in instructions]
    packages = next(index for index, each in enumerate(instructions) if "bootstrap.sh" in each.rest)
    # The sources come after the packages, which are made by an ordinary user and leave no cache.
    assert instructions[packages + 1].paths() == (["."], ".")
    assert names.index("USER") < packages and "rm -rf ~/.cache/pip" in instructions[packages].rest
    assert all("rm -rf /var/lib/apt/lists/*" in each.rest for each in instructions if "apt-get" in each.rest)
    assert "latest" not in instructions[0].rest
    assert names[-1] == "CMD"


@pytest.mark.parametrize("stage", [0, 1])
def test_everything_that_is_copied_is_sent(stage):
    context = Context(CHECKOUT)
    copies = [each for each in image(stage) if each.name == "COPY"]
    assert copies and all(each.flags().get("chown") == "contextlm:contextlm" for each in copies)
    for each in copies:
        for source in each.paths()[0]:
            assert (CHECKOUT / source).exists() and list(context.files(source)), source


def test_what_is_sent_is_small_and_the_sources_only(tmp_path):
    sent = list(Context(CHECKOUT).files())
    assert sum((CHECKOUT / name).stat().st_size for name in sent) < MAX_CONTEXT_BYTES
    if (CHECKOUT / ".git").exists():  # not in an image
        tracked = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        assert set(tracked.stdout.split()) - set(sent) == {".gitignore"}
    for name in (
        "runs/my/iter_0000001/weights",
        "data/my.bin",
        "contextlm/__pycache__/a.pyc",
        ".venv/bin/python",
        ".env",
    ):
        assert not Context(CHECKOUT).has(name), name
    # A control: these rules decide.
    (tmp_path / ".dockerignore").write_text("*\n!kept\n**/*.pyc\n")
    found = {name: Context(tmp_path).has(name) for name in ("kept/a/b", "kept/a/b.pyc", "other", "sub/kept")}
    assert found == {"kept/a/b": True, "kept/a/b.pyc": False, "other": False, "sub/kept": False}


@pytest.mark.parametrize("line", ["ADD https://example.org/a.tar /", "ENTRYPOINT bash", "copy . ."])
def test_other_instructions_are_noticed(line):
    with pytest.raises(ValueError, match="no instruction of ours"):
        parse(TEXT + line)


def test_hadolint_has_nothing_to_say(tmp_path):
    hadolint = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if hadolint is None:
        pytest.skip("hadolint is not installed (its package has no build for this machine)")
    lint = [hadolint, "--no-color", "--config", str(CHECKOUT / ".hadolint.yaml")]
    found = subprocess.run([*lint, "Dockerfile"], cwd=CHECKOUT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text(TEXT.replace("--no-install-recommends ", ""))
    assert "DL3015" in subprocess.run([*lint, str(bad)], capture_output=True, text=True).stdout


@pytest.fixture
def debian(tmp_path):
    """A folder with a bare Debian in it, as the CPU stage's base image is one; gone afterwards."""
    able = os.geteuid() == 0 and shutil.which("debootstrap") and shutil.which("unshare")
    if not able or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        pytest.skip("takes root with debootstrap and the right to mount")
    try:
        urllib.request.urlopen(f"{DEBIAN}/dists/bookworm/Release", timeout=20).read(1)
    except OSError as error:
        pytest.skip(f"no Debian to be had here: {error}")
    root = tmp_path / "root"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", root, DEBIAN], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout[-2000:]
    yield root
    shutil.rmtree(root)


@pytest.mark.full
def test_the_cpu_stage_is_carried_out_and_trains(debian, tmp_path):
    built = ImageRoot(debian, Context(CHECKOUT), tmp_path / "log")
    built.carry_out(image(0))
    built.run("make quickstart ARGS='--iterations 12'")
    assert (debian / "opt/contextlm/runs/quickstart/report.html").exists()
    assert (debian / "opt/contextlm/runs").stat().st_uid == int(built.user.split(":")[0])
    assert not (debian / "home/contextlm/.cache/pip").exists()
    assert str(debian) not in Path("/proc/mounts").read_text()
