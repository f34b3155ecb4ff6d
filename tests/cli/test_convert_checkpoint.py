"""tools/convert_checkpoint.py: to Hugging Face's folders and back, and nothing left of what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from contextlm.config.schema import DataConfig
from contextlm.data.tokenizers import build_tokenizer
from tests.cli.programs import run
from tests.distributed import conversion_cases as cases
from tests.distributed.pool import Pool

pytest.importorskip("transformers")

IDS = torch.randint(257, (2, 21), generator=torch.Generator().manual_seed(0)).tolist()
MODELS = {
    "GPT2LMHeadModel": ("gpt2", {"context_chunk_size": 0}),
    "GPTNeoXForCausalLM": ("pythia", {"context_chunk_size": 0}),
    "ContextLMForCausalLM": ("pythia", {"context_fusion": "gated_channel"}),
}


@pytest.fixture(scope="module")
def checkpoints(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each kind, all weights random."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name, (backbone, values) in MODELS.items():
        pool.run(cases.save_random, 1, folder=str(root / name), backbone=backbone, values=values)
    return {name: root / name for name in MODELS}


@pytest.fixture(scope="module")
def exported(pool: Pool, checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder that each becomes, in several files."""
    root = tmp_path_factory.mktemp("exported")
    for name, checkpoint in checkpoints.items():
        found = pool.run(cases.export, 1, load=str(checkpoint), save=str(root / name), max_file_bytes=200_000)[0]
        assert isinstance(found, dict), found
    return {name: root / name for name in checkpoints}


@pytest.mark.parametrize("name", MODELS)
def test_to_hugging_face(exported: dict[str, Path], name: str) -> None:
    folder = exported[name]
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [name] and config["vocab_size"] == 257  # 384 rows were padded
    assert ("auto_map" in config) == (folder / "modeling_contextlm.py").exists() == (name == "ContextLMForCausalLM")
    parity = json.loads((folder / "parity.json").read_text())
    assert 0 <= parity["relative_difference"] < 2e-6 and parity["max_abs_logit"] > 1
    files = sorted(folder.glob("model-*-of-*.safetensors"))
    assert sorted(parity["sha256"]) == [path.name for path in files] and len(files) > 3
    card = (folder / "README.md").read_text()
    assert (
        name in card and "| vocabulary | 257 |" in card and ("reconstruction" in card) == (name.startswith("Context"))
    )
    assert not list(folder.parent.glob("*.part"))


def test_the_tokenizer_travels(exported: dict[str, Path]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported["GPT2LMHeadModel"])
    text = "Gr\u00fc\u00dfe,  zwei\n"
    assert tokenizer(text).input_ids == list(text.encode()) and tokenizer.eos_token_id == 256
    assert tokenizer.decode(list(text.encode())) == text


def test_with_the_folders_own_code(pool: Pool, exported: dict[str, Path], tmp_path: Path) -> None:
    """Whoever has transformers alone trusts the code in the folder: a copy of ours."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(exported["ContextLMForCausalLM"], folder)
    (ours,) = pool.run(cases.logits_of, 1, folder=str(folder), ids=IDS)
    (theirs,) = pool.run(cases.logits_of, 1, folder=str(folder), ids=IDS, trust=True)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(pool: Pool, exported: dict[str, Path], tmp_path: Path, name: str) -> None:
    """The checkpoint that comes back is exported to the same files."""
    found = pool.run(cases.import_model, 1, load=str(exported[name]), save=str(tmp_path / "back"))[0]
    assert isinstance(found, dict), found
    facts = json.loads((tmp_path / "back" / "iter_0000000" / "run.json").read_text())
    assert facts["weights_only"] and facts["converted"]["relative_difference"] < 2e-6
    again = tmp_path / "again"
    pool.run(cases.export, 1, load=str(tmp_path / "back"), save=str(again), max_file_bytes=200_000)
    for path in exported[name].glob("*.safetensors"):
        assert path.read_bytes() == (again / path.name).read_bytes()
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (again, exported[name]))
    assert ours == theirs | {"initializer_range": ours["initializer_range"]}


@pytest.mark.parametrize(
    ("world_size", "values"),
    [
        (4, {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2, "sequence_parallel": True}),
        pytest.param(2, {"bf16": True}, marks=pytest.mark.full),
    ],
    ids=["TP2 SP x PP2", "bf16 DP2"],
)
def test_saved_under_any_layout(
    pool: Pool, data: Path, checkpoints: dict[str, Path], exported: dict[str, Path], tmp_path: Path, world_size, values
) -> None:
    """The same files as from one process; in 16 bits, those rounded."""
    name = "ContextLMForCausalLM"
    backbone, own = MODELS[name]
    whole = own | values | {"data_path": (str(data),), "micro_batch_size": 2}
    places = {"source": str(checkpoints[name]), "folder": str(tmp_path / "run")}
    pool.run(cases.save_under, world_size, **places, backbone=backbone, values=whole)
    found = pool.run(cases.export, 1, load=str(tmp_path / "run"), save=str(tmp_path / "out"), max_file_bytes=200_000)[0]
    assert isinstance(found, dict), found
    expected, tensors = (
        {key: value for path in folder.glob("*.safetensors") for key, value in load_file(path).items()}
        for folder in (exported[name], tmp_path / "out")
    )
    assert tensors.keys() == expected.keys()
    for key, value in tensors.items():
        assert torch.equal(value, expected[key].to(value.dtype)), key
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| iteration | 0 |" in card and "TP" in card and "| data fingerprint |" in card


@pytest.mark.parametrize("backbone", ["gpt2", "pythia"])
def test_a_new_head_on_a_converted_backbone(pool: Pool, data: Path, tmp_path: Path, backbone: str) -> None:
    """Weights of transformers, with rows of padding; then a ContextLM whose step 0 is the backbone, to rounding."""
    theirs, ours = str(tmp_path / "theirs"), str(tmp_path / "ours")
    pool.run(cases.peer_folder, 1, folder=theirs, backbone=backbone)
    found = pool.run(cases.import_model, 1, load=theirs, save=ours, tokenizer_type="ByteTokenizer")[0]
    assert isinstance(found, dict), found
    values = {"data_path": (str(data),), "context_chunk_size": 4}
    (logits,) = pool.run(cases.logits_of_new_head, 1, source=ours, backbone=backbone, values=values, ids=IDS)
    (expected,) = pool.run(cases.logits_of, 1, folder=theirs, ids=IDS)
    expected = expected[..., :257]
    assert expected.shape == logits.shape and (logits - expected).abs().max() < 2e-6 * expected.abs().max()


def test_another_model_is_noticed(pool: Pool, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for name, checkpoint in checkpoints.items():
        fault = "queries and keys are swapped"
        found = pool.run(cases.export, 1, load=str(checkpoint), save=str(tmp_path / name), sabotage=fault)[0]
        assert isinstance(found, str) and "the converted model is another one: its logits differ by" in found
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk(pool: Pool, checkpoints: dict[str, Path], exported: dict[str, Path], tmp_path: Path) -> None:
    name = "ContextLMForCausalLM"
    for convert, source in ((cases.export, checkpoints[name]), (cases.import_model, exported[name])):
        (found,) = pool.run(convert, 1, load=str(source), save=str(tmp_path / "out"), sabotage="disk is full")
        assert isinstance(found, str) and "cannot be written" in found and "nothing was kept" in found, found
        assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("iter_*"))


def test_bad_folders(pool: Pool, exported: dict[str, Path], tmp_path: Path) -> None:
    """Each is told in a sentence, before a model is built, and leaves nothing."""

    def refused(name: str, change, **data: str) -> str:
        folder = tmp_path / name
        shutil.copytree(exported["GPTNeoXForCausalLM"], folder)
        change(folder)
        (found,) = pool.run(cases.import_model, 1, load=str(folder), save=str(tmp_path / "out"), **data)
        assert isinstance(found, str) and not (tmp_path / "out").exists()
        return found

    def set_config(**values):
        def change(folder: Path) -> None:
            path = folder / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | values))

        return change

    def cut(folder: Path) -> None:
        path = sorted(folder.glob("model-*"))[1]
        path.write_bytes(path.read_bytes()[:-100])

    def rename_weight(folder: Path) -> None:
        path = sorted(folder.glob("model-*"))[0]
        tensors = load_file(path)
        tensors["gpt_neox.stranger"] = tensors.pop("gpt_neox.embed_in.weight")
        save_file(tensors, path, metadata={"format": "pt"})
        index = folder / "model.safetensors.index.json"
        index.write_text(index.read_text().replace("gpt_neox.embed_in.weight", "gpt_neox.stranger"))

    assert "holds no config.json" in refused("no config", lambda folder: (folder / "config.json").unlink())
    assert "model_type 'llama' is not supported" in refused("llama", set_config(model_type="llama"))
    assert "rope_type 'linear' is not supported" in refused(
        "rope", set_config(rope_parameters={"rope_type": "linear", "factor": 2.0})
    )
    found = refused("wider", set_config(intermediate_size=512))
    assert "gpt_neox.layers.0.mlp.dense_h_to_4h.weight: is [256, 64] in the files, but" in found
    assert "config.json expects [512, 64]" in found and "layers.3.mlp.dense_4h_to_h.weight" in found
    assert "gpt_neox.layers.4.input_layernorm.weight: is missing" in refused("more", set_config(num_hidden_layers=5))
    assert "00002-of-" in (found := refused("shard", lambda f: sorted(f.glob("model-*"))[1].unlink())), found
    assert "is missing; fetch the folder again" in found
    assert "is damaged or cut off" in refused("cut", cut)
    found = refused("stranger", rename_weight)
    assert "gpt_neox.stranger: is [257, 64] in the files" in found and "gpt_neox.embed_in.weight: is missing" in found
    found = refused("tokenizer", set_config(vocab_size=5000), tokenizer_type="ByteTokenizer")
    assert "the model has 5000 rows of vocabulary, the tokenizer 257 ids" in found


def test_command_line(pool: Pool, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source, out = str(checkpoints["GPT2LMHeadModel"]), tmp_path / "out"
    (shown,) = pool.run(cases.command_line, 1, arguments=["--to", "hf", "--load", source, "--save", str(out)])
    assert shown.startswith(f"wrote {out}: logits differ by")
    assert sorted(path.name for path in out.glob("model*")) == ["model.safetensors"]
    again = run("tools/convert_checkpoint.py", "--to", "hf", "--load", source, "--save", str(out), "--eod-token", "x")
    assert again.returncode == 1 and "error: --eod-token: belongs to --from hf" in again.stderr
    (found,) = pool.run(cases.export, 1, load=source, save=str(out))
    assert found == f"--save {out}: is there already; give a new folder"
    (found,) = pool.run(cases.export, 1, load=str(tmp_path / "none"), save=str(tmp_path / "other"))
    assert found == f"--load {tmp_path / 'none'}: holds no checkpoint; give a folder that --save made"
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "ContextLMForCausalLM"])
def test_what_is_next_is_possible(pool: Pool, exported: dict[str, Path], tmp_path: Path, name: str) -> None:
    """A model that has a context head gets no other: `--init-backbone-from` would refuse it."""
    arguments = ["--from", "hf", "--load", str(exported[name]), "--save", str(tmp_path / "back")]
    (shown,) = pool.run(cases.command_line, 1, arguments=arguments)
    assert f"--load {tmp_path / 'back'} --finetune ..." in shown
    assert ("--init-backbone-from" in shown) == (name == "GPT2LMHeadModel")


def test_weights_alone_are_no_run_to_resume(checkpoints: dict[str, Path]) -> None:
    from contextlm.checkpoints import compatibility
    from contextlm.config.yaml_file import load
    from contextlm.errors import UserError

    folder = checkpoints["GPT2LMHeadModel"] / "iter_0000000"
    tokenizer = build_tokenizer(DataConfig(tokenizer_type="ByteTokenizer"))
    with pytest.raises(UserError, match="holds weights alone.*--finetune"):
        compatibility.check(folder, load(folder / "config.yaml"), tokenizer, with_optimizer=True)
    compatibility.check(folder, load(folder / "config.yaml"), tokenizer)
