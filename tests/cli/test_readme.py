"""The pages tell the truth: paths and links exist, commands parse, ticks have tests, tables agree with the code."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from contextlm.analysis.flops import forward_flops_per_token
from contextlm.analysis.parameters import count_parameters
from contextlm.config.fields import all_fields
from contextlm.config.flags import PROGRAM_FLAGS
from contextlm.config.resolve import parse
from contextlm.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
ROOMS = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def section(title: str) -> str:
    """The README's text under a heading."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """The cells of a page's table rows, without headings."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    rules = [number for number, cells in enumerate(found) if set("".join(cells)) <= {"-"}]
    headings = {number - 1 for number in rules}
    return [cells for number, cells in enumerate(found) if number not in headings and number not in rules]


def commands(page: str) -> list[str]:
    """Every command of a page's bash blocks, continued lines joined, comments dropped."""
    lines = "\n".join(blocks("bash", text_of(page))).replace("\\\n", " ").splitlines()
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def make_files(words: list[str], folder: Path) -> None:
    """Create the datasets, tokenizers and checkpoints that a command names, empty."""
    for flag, suffixes in (("--data-path", (".bin", ".idx")), ("--tokenizer-model", ("",))):
        if flag in words:
            for suffix in suffixes:
                path = folder / (words[words.index(flag) + 1] + suffix)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def check_benchmark(arguments: list[str]) -> None:
    """Its own parser reads the words; its files import each other by their own names."""
    with mock.patch.object(sys, "path", [str(ROOT / "benchmarks"), *sys.path]):
        importlib.import_module(Path(arguments[0]).stem).parser().parse_args(arguments[1:])


def check(words: list[str], folder: Path) -> None:
    """Run nothing, but have each program's own reader read its words; anything unknown raises."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, arguments = words[0], words[1:]
    if program == "srun":
        start = arguments.index("bash")
        assert set(arguments[:start:2]) <= {"--nodes", "--ntasks-per-node", "--gpus-per-node"}
        check(arguments[start:], folder)
    elif program == "make":
        targets = [word for word in arguments if "=" not in word]
        assert targets and all(re.search(rf"^{target}:", text_of("Makefile"), re.MULTILINE) for target in targets)
    elif program == "torchrun":
        assert arguments[0] == "--nproc-per-node" and arguments[2] == "pretrain_contextlm.py"
        make_files(arguments, folder)
        parse(arguments[3:], {"WORLD_SIZE": arguments[1]})
    elif program == "python" and arguments[0] == "pretrain_contextlm.py":
        make_files(arguments, folder)
        parse(arguments[1:], {})
    elif program == "python" and arguments[0].startswith("tools/"):
        check_tool(arguments)
    elif program == "python" and arguments[0].startswith("benchmarks/"):
        check_benchmark(arguments)
    elif program == "sbatch":
        assert (ROOT / arguments[0]).read_text().startswith("#!")
        check(["bash", *arguments[1:]], folder)
    elif program in ("kubectl", "sky"):
        assert arguments[:-1] in (["apply", "-f"], ["jobs", "launch"]) and (ROOT / arguments[-1]).exists()
    elif program == "apptainer" and arguments[0] == "build":
        assert arguments[1].endswith(".sif") and arguments[2] == "docker-daemon://contextlm:latest"
    elif program == "apptainer" or arguments[0] == "examples/docker/run.sh":
        check(arguments[arguments.index("bash", 1) :], folder)
    elif program == "bash":
        given = [word for word in arguments[1:] if word != "--dry-run"]
        shown = [program, str(ROOT / arguments[0]), *given, "--dry-run"]
        subprocess.run(shown, env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}, check=True, capture_output=True)
    elif program == "mkdir":
        assert arguments[0] == "-p" and set(arguments[1:]) <= {"data", "runs"}
    elif program == "docker":
        check_docker(arguments)
    else:
        raise AssertionError(f"what is {program}?")


def check_tool(arguments: list[str]) -> None:
    tool = importlib.import_module(arguments[0].removesuffix(".py").replace("/", "."))
    if hasattr(tool, "parser"):
        tool.parser().parse_args(arguments[1:])
        return
    # argparse ends with 2, a folder that is not there with 1.
    ended = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, env={"PYTHONPATH": str(ROOT)})
    assert ended.returncode in (0, 1), ended.stderr


def check_docker(arguments: list[str]) -> None:
    workdir = re.search(r"^WORKDIR (\S+)", text_of("Dockerfile"), re.MULTILINE)
    assert arguments[0] in ("build", "run") and workdir is not None
    if arguments[0] == "build":
        assert arguments[1:] in (["-t", "contextlm", "."], ["--target", "cpu", "-t", "contextlm-cpu", "."])
        return
    image = next(index for index, word in enumerate(arguments) if word in ("contextlm", "contextlm-cpu"))
    given = arguments[:image]
    mounts = [word.split(":")[1] for flag, word in zip(given, given[1:], strict=False) if flag == "-v"]
    assert len(mounts) == 2 and all(Path(mount).parent == Path(workdir[1]) for mount in mounts)
    assert ("--gpus" in given) == ("memlock=-1" in given) == (arguments[image] == "contextlm")
    assert "--init" in given and ("--ipc=host" in given or "--shm-size" in given)
    assert "NNODES=4" not in given or "--network" in given
    check(arguments[image + 1 :], ROOT)


COMMANDS = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[command[:60] for _, command in COMMANDS])
def test_commands_are_understood(page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check(shlex.split(command), tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "make coffee",
        "torchrun --nproc-per-node 4 pretrain_contextlm.py --model contextlm-gpt2-9b",
        "python pretrain_contextlm.py --no-such-flag --dry-run",
        "python tools/evaluate.py --lode runs/my",
        "python tools/report.py --outputs x runs/my",
        "bash examples/gpt2/1.5b.sh --no-such-flag",
        "curl example.org",
    ],
)
def test_a_wrong_command_would_be_noticed(command: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, UserError, SystemExit, subprocess.CalledProcessError)) as raised:
        check(shlex.split(command), tmp_path)
    assert not (isinstance(raised.value, SystemExit) and raised.value.code == 0)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page: str) -> None:
    text, folder = text_of(page), (ROOT / page).parent
    broken = []
    for label, link in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        target = folder / path if path else ROOT / page
        misnamed = label.endswith(".py") and not link.endswith(label)
        if misnamed or not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    for path in re.findall(r"`([\w./-]+)`", text):
        if path.split("/")[0] in ROOMS and path.split("/")[0] != "runs" and "/" in path and not (ROOT / path).exists():
            broken.append(path)
    assert broken == []


def test_the_tree_is_the_tree() -> None:
    lines = blocks("text", section("Tree"))[0].splitlines()
    entries = [re.fullmatch(r"(\S+)  +(\S.*)", line) for line in lines]
    assert None not in entries
    listed = [entry[1] for entry in entries if entry]
    assert [path for path in listed if not (ROOT / path).exists()] == []
    assert [path for path in listed if path.endswith("/") != (ROOT / path).is_dir()] == []
    needed = [f"contextlm/{path.name}/" for path in (ROOT / "contextlm").iterdir() if (path / "__init__.py").exists()]
    needed += [f"tools/{path.name}" for path in (ROOT / "tools").glob("[!_]*.py")]
    examples = [path for path in (ROOT / "examples").iterdir() if not path.name.startswith("_")]
    needed += [f"examples/{path.name}{'/' * path.is_dir()}" for path in examples]
    needed += [f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")]
    assert sorted(set(needed) - set(listed)) == []


def test_every_tick_has_a_test() -> None:
    table = rows(section("What is supported"))
    assert len(table) >= 10
    for feature, on_cpu, on_gpu in table:
        for cell, room in ((on_cpu, "tests/"), (on_gpu, "tests/gpu/")):
            linked = re.findall(r"\]\((.*?)\)", cell)
            assert (cell.startswith("✓") and linked) or cell in ("not yet", "-"), feature
            for path in linked:
                assert path.startswith(room) and "def test_" in text_of(path), (feature, path)


@pytest.mark.parametrize("flag", re.findall(r"`(--[\w-]+)`", section("Not supported yet")))
def test_what_is_not_supported_is_refused_by_name(flag: str) -> None:
    problems: list[str] = []
    for words in ([flag], [flag, "2"]):
        with pytest.raises(UserError) as raised:
            parse(["--dry-run", *words], {})
        problems += raised.value.problems
    assert any(problem.startswith(flag) and "not supported" in problem for problem in problems), problems


@pytest.mark.parametrize("page", PAGES)
def test_flags_that_pages_speak_of_exist(page: str) -> None:
    text = text_of(page).replace(section("Not supported yet"), "") if page == "README.md" else text_of(page)
    fields = all_fields().values()
    known = {field.flag for field in fields} | {f"--{name}" for name in PROGRAM_FLAGS}
    known |= {f"--no-{field.flag[2:]}" for field in fields if field.kind is bool}
    tools = "".join(path.read_text() for path in (ROOT / "tools").glob("*.py"))
    known |= set(re.findall(r'"(--[a-z][\w-]*)"', tools))
    known |= set(re.findall(r'" (--[a-z-]+) "', text_of("examples/launch.sh")))
    known |= {"--signal"} if page == "docs/launching.md" else set()  # Slurm's
    # Docker's own, as the README has them.
    docker = [command for command in commands("README.md") if command.startswith("docker ")]
    known |= {word.split("=")[0] for command in docker for word in shlex.split(command)} | {"--build-arg"}
    spoken = {flag for flag in re.findall(r"`(--[a-z][\w-]*)", text)}
    assert sorted(spoken - known) == []


def test_the_table_of_switches_has_every_switch() -> None:
    table = {cells[0].split("`")[1]: cells for cells in rows(text_of("docs/method.md")) if cells[0].startswith("`--")}
    switches = {field.flag: field for field in all_fields().values() if field.section == "context"}
    assert table.keys() == switches.keys()
    for flag, field in switches.items():
        assert all(choice in " ".join(table[flag]) for choice in field.choices or ()), flag


def lines_of_tables(page: str) -> dict[str, list[str]]:
    """The lines of all tables of a page by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in text_of(page).splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


def test_the_table_of_documents_is_what_the_code_does() -> None:
    from contextlm.model.document_chunks import DocumentChunks
    from contextlm.model.documents import Documents

    table = lines_of_tables("docs/method.md")
    names = table["its document"]
    positions = torch.tensor([[place - names.index(name) for place, name in enumerate(names)]])
    chunks = DocumentChunks(Documents(positions, isolated=True), 4)
    members_CT = chunks.pool(torch.eye(len(names))[:, None], "mean")[:, 0] > 0
    owners = [members.nonzero().flatten().tolist() for members in members_CT.T]
    assert table["its chunk"] == [str(*owner) if owner else "-" for owner in owners]
    received = chunks.spread(torch.arange(1.0, 4).reshape(-1, 1, 1), len(names), shift=True).flatten().int().tolist()
    assert table["its prediction"] == [str(k - 1) if k else "-" for k in received]


def test_the_table_of_the_alignment_is_what_the_code_does() -> None:
    from contextlm.model.chunking import spread

    table = lines_of_tables("docs/method.md")
    tokens = [int(cell) for cell in table["token t"]]
    prediction_CBH = torch.arange(1.0, 1 + len(tokens) // 4).reshape(-1, 1, 1)  # 0 is left for tokens without one
    received = spread(prediction_CBH, len(tokens), chunk_size=4, shift=True).flatten().int().tolist()
    assert table["receives p"] == [str(k - 1) if k else "-" for k in received]
    assert table["chunk it is in"] == [str(t // 4) for t in tokens]
    assert table["token it predicts is in chunk"] == [str((t + 1) // 4) for t in tokens]


def test_the_table_of_costs_is_what_the_code_computes() -> None:
    table = [cells for cells in rows(text_of("docs/method.md")) if cells[0].startswith("contextlm-")]
    assert len(table) == 9
    for name, *cells in table:
        ours, plain = (parse(["--model", model, "--dry-run"], {}).config for model in (name, name[len("contextlm-") :]))
        vocabulary = plain.model.vocab_size or 0
        parameters = count_parameters(plain, vocabulary).total
        head = count_parameters(ours, vocabulary).context_head
        flops = forward_flops_per_token(ours, vocabulary) / forward_flops_per_token(plain, vocabulary) - 1
        model = ours.model
        assert cells == [
            *map(str, (model.num_layers, model.hidden_size, model.num_attention_heads, model.seq_length)),
            f"{parameters / 1e6:.1f}M", f"{head / 1e6:.1f}M", f"{head / parameters:.1%}", f"{flops:.1%}",
        ]  # fmt: skip
