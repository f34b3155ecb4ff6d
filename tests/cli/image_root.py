"""Carries out a stage of a Dockerfile without Docker, in a folder with Debian in it, by chroot.

Each RUN gets namespaces of its own, in which it sees /proc, /dev and a /dev/shm; they and all that it started end with
it, so nothing stays mounted. The network is the host's, and so is its pip's configuration, as a Docker daemon behind a
package mirror would have it; of the host's files a RUN sees those which that names, and no others. Needs root.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cli.dockerfile import Context, Instruction

_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
# $0 the command, $1 the user, $2 what goes to the folder and runs it, then the variables.
_ENTER = 'exec chroot --userspec="$1" . env -i "${@:3}" /bin/sh -c "$2" "$0"'


class ImageRoot:
    """A file system that becomes an image.

    Args:
        root: a folder with Debian in it.
        context: what COPY copies from.
        log: a file that takes the output.
    """

    def __init__(self, root: Path, context: Context, log: Path) -> None:
        self.root, self.context, self.log = root, context, log
        self.user, self.folder = "0:0", "/"
        self.variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.bound = _pip_paths()
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")

    def carry_out(self, stage: Sequence[Instruction]) -> None:
        """All instructions of a stage, in order; an error of a RUN is an AssertionError with its last lines."""
        for instruction in stage:
            if instruction.name == "RUN":
                self.run(instruction.rest)
            elif instruction.name == "COPY":
                self._copy(instruction)
            elif instruction.name == "USER":
                self.user = instruction.rest
            elif instruction.name == "WORKDIR":
                self.folder = instruction.rest
                (self.root / self.folder[1:]).mkdir(parents=True, exist_ok=True)
            elif instruction.name == "ENV":
                values = instruction.values().items()
                self.variables |= {name: value.replace("$PATH", self.variables["PATH"]) for name, value in values}

    def run(self, command: str) -> None:
        """One shell command, as the present user, in the present folder."""
        user = self.user.split(":")[0]
        home = next(line.split(":")[5] for line in self._passwd() if line.split(":")[2] == user)
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        variables = [f"{name}={value}" for name, value in {"HOME": home, **pip, **self.variables}.items()]
        script = "\n".join(["set -e", f"cd {shlex.quote(str(self.root))}", *self._mounts(), _ENTER])
        arguments = [command, self.user, f'cd {self.folder} && exec /bin/sh -c "$0"', *variables]
        with self.log.open("a") as log:
            print(f"RUN {command}", file=log, flush=True)
            ended = subprocess.run(
                [*_NAMESPACES, "bash", "-c", script, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        assert ended.returncode == 0, f"{command}: {ended.returncode}\n" + self.log.read_text()[-4000:]

    def _mounts(self) -> list[str]:
        """Shell commands, for the root folder."""
        mounts = ["mount -t proc proc proc", "mount --rbind /dev dev", "mount -t tmpfs -o size=1g shm dev/shm"]
        if self.user == "0:0":  # root installs Debian's packages, and no others
            return mounts
        for path in self.bound:
            inside = self.root / path.relative_to("/")
            (inside if path.is_dir() else inside.parent).mkdir(parents=True, exist_ok=True)
            if path.is_file():
                inside.touch()
            mounts.append(shlex.join(["mount", "--bind", "-o", "ro", str(path), str(inside)]))
        return mounts

    def _copy(self, instruction: Instruction) -> None:
        """Files of the context, with the owner that --chown names; a folder's contents, not the folder."""
        wanted = instruction.flags()["chown"].split(":")[0]
        uid, gid = next(map(int, line.split(":")[2:4]) for line in self._passwd() if line.split(":")[0] == wanted)
        sources, destination = instruction.paths()
        target = self.root / os.path.normpath(f"{self.folder}/{destination}")[1:]
        for source in sources:
            is_folder = (self.context.root / source).is_dir()
            into = target / Path(source).name if not is_folder and destination.endswith("/") else target
            for name in self.context.files(source):
                copy = into / Path(name).relative_to(source) if is_folder else into
                self._own(copy.parent, uid, gid)
                shutil.copy2(self.context.root / name, copy)
                os.chown(copy, uid, gid)

    def _own(self, folder: Path, uid: int, gid: int) -> None:
        """Make a folder and those above it that are missing, with their owner."""
        if not folder.exists():
            self._own(folder.parent, uid, gid)
            folder.mkdir()
            os.chown(folder, uid, gid)

    def _passwd(self) -> list[str]:
        return (self.root / "etc/passwd").read_text().splitlines()


def _pip_paths() -> list[Path]:
    """Files and folders that this machine's pip is told to use: certificates, wheels, constraints, an index on disk."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    named = re.findall(r"(?:file://|')(/[^'\s]+)", listed.stdout)
    found = [Path("/etc/pip.conf"), *(Path(name).parent if name.endswith("/simple") else Path(name) for name in named)]
    return sorted({path for path in found if path.exists()})
