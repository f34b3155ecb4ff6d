"""--executor ray on a cluster of this machine: the bytes of one run, errors of the nodes told as ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.programs import environment, run

pytestmark = pytest.mark.full
pytest.importorskip("ray", reason="Ray is not installed")

TOKENIZER = ("--append-eod", "--tokenizer-type", "ByteTokenizer")


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Variables with which a program finds a Ray cluster of one node with two cores."""
    # A folder of its own: Ray's usual one would tell others of this cluster, after its end too. With a short name:
    # there are sockets in it.
    folder = tempfile.mkdtemp(prefix="ray")
    ray = str(Path(sys.executable).with_name("ray"))
    options = ["--head", "--port=0", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", "--block"]
    options.append(f"--temp-dir={folder}")
    with open(Path(folder, "log"), "wb") as log:
        head = subprocess.Popen(
            [ray, "start", *options], stdout=log, stderr=log, env=environment(), start_new_session=True
        )
        try:
            while not Path(folder, "ray_current_cluster").exists():
                assert head.poll() is None, Path(folder, "log").read_text()
                time.sleep(0.2)
            yield {"RAY_TMPDIR": folder}
        finally:
            head.terminate()
            head.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


def preprocess(inputs: Path, prefix: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(
        *("tools/preprocess_data.py", "--input", str(inputs), "--output-prefix", str(prefix), *TOKENIZER, *options),
        **variables,
    )


def test_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "one"}))
    ray = ("--partitions", "1", "--executor", "ray")
    lonely = preprocess(tmp_path / "c.jsonl", tmp_path / "x", *ray, RAY_TMPDIR=str(tmp_path))
    assert lonely.returncode == 1 and "error: --executor ray: there is no Ray cluster here" in lonely.stderr


def test_the_cluster_gives_the_bytes_of_one_run(cluster: dict[str, str], tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"document {i}"}) for i in range(500)]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    one = preprocess(tmp_path / "c.jsonl", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    for _ in range(2):
        ray = preprocess(tmp_path / "c.jsonl", tmp_path / "ray", "--partitions", "3", "--executor", "ray", **cluster)
        assert ray.returncode == 0, ray.stderr
    assert "finished before, 500 documents" in ray.stderr  # the second time
    for suffix in ("bin", "idx", "json"):
        expected = (tmp_path / f"one_text_document.{suffix}").read_bytes()
        assert (tmp_path / f"ray_text_document.{suffix}").read_bytes() == expected
    (tmp_path / "bad.jsonl").write_text("\n".join([*lines, "bad"]))
    bad = preprocess(tmp_path / "bad.jsonl", tmp_path / "bad", "--partitions", "3", "--executor", "ray", **cluster)
    assert bad.returncode == 1 and "bad.jsonl:501: not valid JSON" in bad.stderr and "Traceback" not in bad.stderr
    many = ("--partitions", "3", "--executor", "ray", "--workers", "64")
    wide = preprocess(tmp_path / "c.jsonl", tmp_path / "wide", *many, **cluster)
    assert wide.returncode == 1 and "--workers 64: a task has as many cores, and no node" in wide.stderr
