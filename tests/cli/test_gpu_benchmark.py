"""What of `benchmarks/gpu.py` needs no GPU: the peers' maths, turns, short time and memory, what kernels had to do."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.distributed.runs import small_run
from tests.random_weights import randomize
from tests.small_configs import VOCAB_SIZE, small_config

GIB = 2**30


@pytest.mark.parametrize("backbone", ["gpt2", "pythia"])
def test_a_peer_does_the_same_work(load_benchmark, backbone):
    from contextlm.training.step import train_step

    # The peers would count the padding of the vocabulary as tokens: here is none.
    values = {"context_chunk_size": 0, "lr": 1e-3, "micro_batch_size": 2, "train_iters": 1_000_000}
    with small_run(backbone, **values, global_batch_size=4, make_vocab_size_divisible_by=VOCAB_SIZE) as ours:
        randomize(ours.language_model[0])
        peer = load_benchmark("plain_trainer").PlainTrainer(ours.config, VOCAB_SIZE)
        load_benchmark("plain_gpt").copy_weights(peer.model, ours.language_model[0].state_dict())
        with contextlib.closing(ours.micro_batches(ours.datasets.train, 0, 2)) as batches:
            ready = list(itertools.islice(batches, 8))
        losses = [train_step(ours, iter(ready[n : n + 2])).loss.item() for n in range(0, 8, 2)]
        theirs = [peer.step(ready[n : n + 2], 2).item() for n in range(0, 8, 2)]
    assert len({round(loss, 4) for loss in losses}) == 4
    assert losses == pytest.approx(theirs, abs=2e-5)


class TorchKernel:
    """What `contextlm/megatron/adamw_kernel.py` does, where there is no Triton."""

    def __init__(self, parameters, blocks):
        self.parameters = parameters

    def update(self, step, scale, skip, lr, betas, eps, weight_decay):
        for gradient, master, first, second, weight in self.parameters:
            optimizer = torch.optim.AdamW([master], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
            optimizer.state[master] = {"step": step - 1, "exp_avg": first, "exp_avg_sq": second}
            master.grad = gradient.float() * scale
            optimizer.step()
            weight.copy_(master)


@pytest.mark.parametrize(("backbone", "num_microbatches"), [("gpt2", 1), ("gpt2", 2), ("pythia", 1)])
def test_the_peer_on_a_gpu_trains_as_the_one_on_a_cpu(load_benchmark, monkeypatch, backbone, num_microbatches):
    """Its loop, norm, clip, groups and masters; in fp32, with AdamW as torch has it."""
    kinds = namedtuple("kinds", ["gradient", "master", "exp_avg", "exp_avg_sq", "weight"])
    kernels = SimpleNamespace(AdamWKernel=TorchKernel, Parameter=kinds)
    monkeypatch.setitem(sys.modules, "contextlm.megatron.adamw_kernel", kernels)
    blocks = SimpleNamespace(Blocks=lambda sizes, device: None)
    monkeypatch.setitem(sys.modules, "contextlm.megatron.blocks", blocks)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(torch, "bfloat16", torch.float32)
    values = {"vocab_size": VOCAB_SIZE, "micro_batch_size": 2, "lr": 1e-2, "weight_decay": 1.0, "clip_grad": 0.5}
    batch = {"global_batch_size": 2 * num_microbatches}
    config = small_config(backbone, context_chunk_size=0, **values, **batch)
    torch.manual_seed(0)
    expected = load_benchmark("plain_trainer").PlainTrainer(config, VOCAB_SIZE)
    tokens = torch.randint(0, VOCAB_SIZE, (8, 2, config.model.seq_length + 1))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: tokens)
    torch.manual_seed(0)
    with load_benchmark("gpu_peer").peer(config, SimpleNamespace(device="cpu")) as step:
        found = [step().item() for _ in range(10)]
    batches = itertools.cycle(tokens)
    given = [[next(batches) for _ in range(num_microbatches)] for _ in range(10)]
    reference = [expected.step(micro_batches, num_microbatches).item() for micro_batches in given]
    assert found == pytest.approx(reference, abs=1e-4) and abs(found[8] - found[0]) > 0.02


@pytest.mark.parametrize("backbone", ["gpt2", pytest.param("pythia", marks=pytest.mark.full)])
def test_the_bottom_of_the_ladder_does_the_same_work(load_benchmark, backbone):
    ladder = load_benchmark("gpu_ladder")

    def losses() -> list:
        from contextlm.training.step import train_step

        with small_run(backbone, context_chunk_size=0, lr=1e-3) as run:
            randomize(run.language_model[0])
            with contextlib.closing(run.micro_batches(run.datasets.train, 0, 1)) as batches:
                found = [train_step(run, batches).loss.item() for _ in range(3)]
            attention = run.language_model[0].decoder.layers[0].self_attention.core_attention
            return [*found, type(attention).__name__]

    expected = losses()
    with small_run(backbone) as run:
        rungs = ladder.rungs(run.config)
    with ladder.without(rungs) as values:
        bottom = losses()
    assert values == {"compile": "off"} | ({"cuda_graphs": "off"} if "cuda_graphs" in values else {})
    assert (expected.pop(), bottom.pop()) == ("ScaledDotProductAttention", "DotProductAttention")
    assert bottom == pytest.approx(expected, abs=2e-5) and len(set(expected)) == 3
    assert losses()[-1] == "ScaledDotProductAttention"  # everything is back


class FakeBench:
    """Trainers that hold some memory, and a clock that moves when they are built or have a window."""

    def __init__(self, load_benchmark, monkeypatch, windows, minutes=9.0, seconds_to_build=20.0):
        self.turns, clock = load_benchmark("gpu_turns"), load_benchmark("gpu_clock")
        self.now, self.used = 0.0, 0
        self.log: list[str] = []
        self.kept: list[str] = []
        self.seconds_to_build, self.broken = seconds_to_build, {}
        self.budget = clock.Budget(minutes, now=lambda: self.now)
        self.found: dict = {}
        self.job = self.turns.Job(windows, 30.0, 1000, 124_000_000, self.opened, self.profile, lambda name: 0.0)
        monkeypatch.setattr(self.turns, "window", self.window)
        monkeypatch.setattr(self.turns, "allocated", lambda: self.used)
        monkeypatch.setattr(self.turns, "peak_allocated", lambda: self.used + 5 * GIB)
        monkeypatch.setattr(self.turns, "forget_all", lambda: self.log.append("|"))
        monkeypatch.setattr(self.turns, "free", lambda: None)
        monkeypatch.setattr(self.turns.torch.cuda, "is_available", lambda: False)

    @contextlib.contextmanager
    def opened(self, name):
        if name in self.broken:
            raise self.broken[name]
        self.now += self.seconds_to_build
        self.used += 20 * GIB
        yield functools.partial(lambda: name)
        self.used -= 20 * GIB

    def window(self, step, seconds):
        self.now += seconds
        self.log.append(step())
        return 2.0

    def profile(self, name, step):
        self.log.append(f"profile of {name}")

    def measure(self, total_memory=80 * GIB):
        keep = lambda: self.kept.append(json.dumps(self.found))  # noqa: E731
        return self.turns.measure(self.job, self.budget, self.found, keep, total_memory)


@pytest.fixture
def bench(load_benchmark, monkeypatch):
    return functools.partial(FakeBench, load_benchmark, monkeypatch)


def test_trainers_take_turns_and_each_window_is_written(bench):
    fake = bench({"plain": 2, "ContextLM": 2, "PyTorch": 1})
    assert fake.measure() == []
    assert fake.log == ["plain", "ContextLM", "plain", "ContextLM", "PyTorch", "|"]
    assert len({text for text in fake.kept if '"tokens_per_second"' in text}) == 5
    assert fake.found["plain"]["windows"][0]["tokens_per_second"] == 2000


def test_what_is_there_is_not_measured_again(bench):
    fake = bench({"plain": 2, "ContextLM": 2})
    fake.found["plain"] = {"windows": [{"tokens_per_second": 1.0}] * 2}
    fake.measure()
    assert fake.log == ["ContextLM", "ContextLM", "|"]
    fake.measure()
    assert fake.log == ["ContextLM", "ContextLM", "|"]


def test_a_trainer_that_cannot_be_finished_is_not_begun(bench):
    # Nobody has told how long it takes to build: 60 s are assumed, then the 20 s of the first.
    fake = bench({"plain": 2, "ContextLM": 2, "PyTorch": 2}, minutes=3.0)
    assert fake.measure() == ["PyTorch"]
    assert fake.log == ["plain", "ContextLM"] * 2 + ["|"] and fake.now == 160
    assert bench({"plain": 2}, minutes=1.9).measure() == ["plain"]


def test_windows_end_with_the_minutes(bench):
    fake = bench({"plain": 3}, minutes=3.0, seconds_to_build=100.0)
    fake.measure()
    assert fake.log == ["plain", "plain", "|"] and fake.now <= 180


def test_trainers_that_do_not_fit_together_are_measured_one_after_another(bench):
    fake = bench({"plain": 2, "ContextLM": 2, "PyTorch": 1})
    fake.measure(total_memory=55 * GIB)
    assert fake.log == ["plain", "ContextLM", "plain", "ContextLM", "|", "PyTorch", "|"]
    apart = bench({"plain": 1, "ContextLM": 1})
    apart.measure(total_memory=45 * GIB)
    assert apart.log == ["plain", "|", "ContextLM", "|"]


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), ValueError("odd")])
def test_a_trainer_that_fails_is_said_to_and_the_others_go_on(bench, capsys, error):
    fake = bench({"plain": 1, "ContextLM": 1, "PyTorch": 1})
    fake.broken["ContextLM"] = error
    fake.measure()
    assert [name for name in fake.log if name != "|"] == ["plain", "PyTorch"]
    is_memory = isinstance(error, RuntimeError)
    assert fake.found["ContextLM"]["failed"] == ("out of memory" if is_memory else "ValueError: odd")
    assert ("odd" in capsys.readouterr().err) == (not is_memory)
    fake.broken.clear()  # memory will not come back; what was wrong may be mended
    fake.measure()
    assert len(fake.found["ContextLM"]["windows"]) == (0 if is_memory else 1)


def test_a_window_without_memory_is_measured_again_alone(bench, monkeypatch):
    fake = bench({"plain": 1, "ContextLM": 1})
    window = fake.window

    def crowded(step, seconds):
        if step() == "ContextLM" and fake.used > 20 * GIB:
            raise torch.OutOfMemoryError
        return window(step, seconds)

    monkeypatch.setattr(fake.turns, "window", crowded)
    fake.measure()
    assert fake.log == ["plain", "|", "ContextLM", "|"] and "failed" not in fake.found["ContextLM"]


def test_the_table_says_ratios_and_what_is_missing(load_benchmark):
    results = load_benchmark("gpu_results")

    def result(rate, at):
        noted = {"tokens_per_second": rate, "product_flops_per_second": 5e14}
        windows = [{"at": at + n * 60.0, "until": at + n * 60 + 30.0, **noted} for n in range(2)]
        flops = {"flops_per_token": 2e9, "causal_flops_per_token": 1.9e9}
        return {"windows": windows, "peak_bytes": 3 * GIB, "first_seconds": 12.3, "compile_seconds": 9.6, **flops}

    found = {"plain": result(2e5, 0), "ContextLM": result(1.9e5, 30), "PyTorch": result(1.6e5, 1000)}
    found["PyTorch, our loss"] = {"failed": "out of memory"}
    shown = results.trainers_table(found, 989.0)
    rows = {line.split("  ")[0]: line.split() for line in shown.splitlines()}
    assert rows["plain"][-8:] == ["1.250", "PyTorch", "40.4%", "38.4%", "80.0%", "3.0", "12", "10"]
    assert "sustained: " in shown
    assert "0.950" in rows["ContextLM"] and "not in turns: plain and PyTorch:" in shown and "PyTorch, our" not in shown
    wanted = dict.fromkeys(found, 3)
    assert results.not_measured(found, wanted, {"the whole loop": False, "profile of plain": True})[-2:] == [
        "PyTorch, our loss (out of memory)",
        "the whole loop",
    ]


@pytest.mark.parametrize(
    ("kernel", "operation", "kind"),
    [
        ("nvjet_hsh_192x192_64x3", "aten::mm", "products"),
        ("sm90_xmma_gemm_bf16", "", "products"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop", "aten::_scaled_dot_product_cudnn_attention", "attention"),
        ("triton_red_fused_native_layer_norm_3", "triton_red_fused_native_layer_norm_3", "pointwise and norms"),
        ("triton_red_fused__log_softmax_nll_loss_1", "", "loss"),
        ("_gradients", "_TokenLossesBackward", "loss"),
        ("_adamw", "", "optimizer"),
        ("void multi_tensor_apply_kernel<LpNormFunctor>", "aten::_foreach_norm", "optimizer"),
        ("Memcpy HtoD (Pinned -> Device)", "aten::copy_", "copies"),
        ("vectorized_elementwise_kernel", "aten::add", "pointwise and norms"),
    ],
)
def test_kernels_have_a_class(load_benchmark, kernel, operation, kind):
    assert load_benchmark("gpu_kernels").class_of(kernel, operation) == kind


@pytest.fixture
def trace(tmp_path):
    """Of two products and a copy: this machine's operations, with kernels as a GPU would have run for them."""
    left, right = torch.randn(64, 32), torch.randn(32, 16)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        torch.addmm(torch.zeros(16), left, right)
        torch.mm(left, right)
        states = torch.empty(64, 16, dtype=torch.bfloat16).copy_(left[:, :16])
        code = tmp_path / "code.py"
        code.write_text("def triton_poi_fused_0(in_out_ptr0, in_ptr0, xnumel, XBLOCK : tl.constexpr):\n    pass\n")
        told = (states, right[0], 1024), {"kernel_file": str(code)}
        with torch._C._profiler._RecordFunctionFast("triton_poi_fused_0", *told):
            pass  # as the compiler does around its kernels, and ours
        with torch._C._profiler._RecordFunctionFast("_gelu_backward_0", (states, states, 128), {}):
            pass
    seen.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    numbers = {event["name"]: event["args"]["External id"] for event in events if event.get("cat") == "cpu_op"}
    made = [
        ("gemm", 30, numbers["aten::addmm"]),
        ("splitKreduce", 5, numbers["aten::addmm"]),
        ("gemm", 20, numbers["aten::mm"]),
        ("copy", 40, numbers["aten::copy_"]),
        ("triton_poi_fused_0", 15, numbers["triton_poi_fused_0"]),
        ("_gelu_backward", 12, numbers["_gelu_backward_0"]),
        ("_adamw", 10, None),
        ("unheard of", 1, None),
    ]
    for name, microseconds, number in made:
        args = {} if number is None else {"External id": number}
        events.append({"cat": "kernel", "name": name, "dur": microseconds, "args": args})
    return events


def test_what_kernels_had_to_do_comes_from_the_shapes(load_benchmark, trace):
    rows = load_benchmark("gpu_kernels").kernels(trace, 1, {"^_adamw$": 3000.0})
    gemm, copy, fused, gelu, adamw, reduction, unheard = rows  # the longest first
    assert [gemm.name, copy.name, adamw.name, unheard.name] == ["gemm", "copy", "_adamw", "unheard of"]
    assert gemm.flops == 2 * 2 * 64 * 32 * 16 and gemm.seconds == pytest.approx(50e-6) and gemm.times == 2
    assert copy.num_bytes == 64 * 16 * (2 + 4) and copy.kind == "copies"
    assert gelu.num_bytes == 2 * 64 * 16 * 2 and gelu.kind == fused.kind
    assert fused.num_bytes == 2 * 64 * 16 * 2 + 16 * 4 and fused.kind == "pointwise and norms"
    assert adamw.num_bytes == 3000 and reduction.flops is None and unheard.num_bytes is None


@pytest.mark.parametrize("name", ["_scaled_dot_product_cudnn_attention", "_flash_attention_forward"])
def test_attention_has_half_a_square(load_benchmark, name):
    shape = [2, 128, 3, 64] if name.startswith("_flash") else [2, 3, 128, 64]
    count = load_benchmark("gpu_kernels").operations_of
    forward = count({"name": f"aten::{name}", "args": {"Input Dims": [shape] * 3}})
    backward = count({"name": f"aten::{name}_backward", "args": {"Input Dims": [shape] * 4}})
    assert forward == 2 * (2 * 2 * 3 * 128 * 128 * 64) / 2 and backward == 2.5 * forward


def test_the_profile_says_the_distance_from_the_roofline(load_benchmark, trace):
    rows = [row._asdict() for row in load_benchmark("gpu_kernels").kernels(trace, 1, {"^_adamw$": 3000.0})]
    ceilings = load_benchmark("gpu_ceilings").Ceilings(flops_per_second=131072 / 50e-6, bytes_per_second=1e9)
    shown = load_benchmark("gpu_profile").shown({"wall_seconds": 200e-6, "kernels": rows}, ceilings)
    lines = {line.split("  ")[0]: line.split() for line in shown.splitlines()}
    assert lines["gemm"][-1] == "100%" and lines["copy"][-1] == "15%" and lines["_adamw"][-1] == "30%"
    assert lines["unheard of"][-1] == "1" and lines["idle"][1:] == ["0.067", "33.5%"]


@pytest.mark.parametrize(
    ("model", "num_steps"), [("gpt2-124m:2", 11), pytest.param("pythia-160m:2x2", 11, marks=pytest.mark.full)]
)
def test_every_part_runs(load_benchmark, monkeypatch, tmp_path, capsys, model, num_steps):
    """A tiny model on the CPU, uncompiled: trainers, ladder and loop; the numbers mean nothing."""
    gpu, bench, trainers = load_benchmark("gpu"), load_benchmark("gpu_bench"), load_benchmark("gpu_trainers")
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "seq_length": 16, "vocab_size": 100}
    presets = trainers.preset
    monkeypatch.setattr(trainers, "preset", lambda name: presets(name) | {"model": presets(name)["model"] | sizes})
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: None)
    monkeypatch.setattr(bench, "peer", lambda *_, **__: contextlib.nullcontext(lambda: None))
    monkeypatch.setattr(gpu, "ceilings", lambda device: load_benchmark("gpu_ceilings").Ceilings(1e12, 1e9))
    monkeypatch.setattr(bench, "WARM_UP", 1)
    monkeypatch.setattr("contextlm.data.loader.POLL_SECONDS", 0.01)  # a loader that is closed ends at once
    monkeypatch.setattr(load_benchmark("gpu_loop"), "ROUNDS", 1)

    words = ["--model", model, "--seconds", "0.05", "--windows", "1", "--out", str(tmp_path)]
    gpu.bench_on("some CPU", gpu.read([*words, "--ladder", "--loop", "--recompute"]))
    shown = capsys.readouterr().out
    assert "not measured" not in shown and "one checkpoint in the middle" in shown, shown
    assert shown.count("\n+ ") == num_steps + 3 and "ContextLM, recomputed" in shown, shown
    written = (tmp_path / "some_CPU.json").read_text()
    monkeypatch.setattr(bench, "build_run", None)  # everything is there: nothing is built again
    gpu.bench_on("some CPU", gpu.read([*words, "--ladder", "--loop", "--recompute"]))
    assert json.loads((tmp_path / "some_CPU.json").read_text())["models"] == json.loads(written)["models"]
    assert capsys.readouterr().out.splitlines()[2:] == shown.splitlines()[2:]


def test_trainers_can_be_chosen(load_benchmark):
    words = ["--trainers", "PyTorch", "plain", "--fp8", "--out", "unused"]
    options = load_benchmark("gpu").read(["--recompute", "--profile", *words])
    expected = {"plain": 3, "PyTorch": 3, "plain, fp8": 3, "plain, recomputed": 1}
    assert load_benchmark("gpu_bench").windows(options) == expected and options.profile == ("plain",)


def test_the_ladder_can_read_rows_twice(load_benchmark):
    from torch._inductor import config
    from torch._inductor.choices import InductorChoices
    from torch._inductor.virtualized import V

    from contextlm.model import whole_rows

    ladder, subject = load_benchmark("gpu_ladder"), load_benchmark("gpu_trainers").subject
    narrow, wide = (
        [rung for rung in ladder.rungs(subject(text).configuration("plain", Path("unused"))) if "rows" in rung.name]
        for text in ("gpt2-124m:32", "gpt2-1.5b:16")
    )
    assert not narrow and len(wide) == whole_rows.has_place()
    if not wide:
        return
    # Both put back what is there now.
    with config.patch(inductor_choices_class=None), V.set_choices_handler(InductorChoices()):
        whole_rows.read_rows_once()
        with ladder.without(wide):
            whole_rows.read_rows_once()  # as every run does
            assert config.inductor_choices_class is None and not isinstance(V.choices, whole_rows.WholeRows)
        assert config.inductor_choices_class is type(V.choices) is whole_rows.WholeRows


def test_attention_kernels_are_ranked_and_the_choice_is_shown(load_benchmark, monkeypatch):
    attention = load_benchmark("gpu_attention")
    config = small_config("gpt2", seq_length=16, micro_batch_size=2)
    seconds = attention.attention_seconds(config, torch.device("cpu"))
    assert "flash" in seconds and "cudnn" not in seconds  # the CPU's is called so too
    assert attention.taken(config, torch.device("cpu")) in {"flash", "math"}
    first, second = attention.shown({"flash": 3e-3, "cudnn": 2e-3}, "cudnn").splitlines()[1:]
    assert first.split(maxsplit=3) == ["cudnn", "2.000", "1.00", "torch's choice"]
    assert second.split() == ["flash", "3.000", "1.50"]


def test_ceilings_are_measured(load_benchmark):
    rates = load_benchmark("gpu_ceilings").ceilings(torch.device("cpu"), edge=16, seconds=0.01)
    assert rates.flops_per_second > 0 and rates.bytes_per_second > 0


def test_several_microbatches(load_benchmark):
    options = load_benchmark("gpu").read(["--model", "gpt2-124m:32x4", "pythia-70m:4", "--out", "unused"])
    assert [str(model) for model in options.model] == ["gpt2-124m:32x4", "pythia-70m:4"]
    config = options.model[0].configuration("plain", Path("unused"))
    assert (config.training.micro_batch_size, config.training.global_batch_size) == (32, 128)


@pytest.mark.parametrize(
    "text",
    ["gpt2-124m", "gpt2-124m:0", "gpt2-124m:8x", "gpt2-124m:8x0", "gpt2-tiny:8", "contextlm-gpt2-124m:32", "llama:1"],
)
def test_what_is_no_subject_is_refused(load_benchmark, capsys, text):
    with pytest.raises(SystemExit):
        load_benchmark("gpu").read(["--model", text, "--out", "unused"])
    assert f"'{text}': give PRESET:MICRO_BATCH_SIZE, e.g. gpt2-124m:32" in capsys.readouterr().err


def test_the_help_teaches(load_benchmark):
    text = load_benchmark("gpu").parser().format_help()
    assert "python benchmarks/gpu.py --model" in text and "--ladder" in text and "causal\nhalf" in text
