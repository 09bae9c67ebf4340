"""Transfer from end to end: a run of ours, timm's weights and Google's, at another resolution."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled

from vitexp import cli
from vitexp.nn.vit import ViT, ViTConfig
from vitexp.record import read_record
from vitexp.train.command import FINETUNE
from vitexp.train.initial import file_of
from vitexp.weights import google as weights_npz
from vitexp.weights import timm as weights_timm
from vitexp.weights import timm_hub as timm_network
from vitexp.weights.read import save_own

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--run.wandb=off", "--run.shots=[]"]
SHORT = ["--model.arch=micro/4", "--data.batch_size=200", "--trainer.max_steps=9", "--model.warmup_steps=2"]


@pytest.fixture
def run(door):
    """Runs a verb in an empty folder; gives its exit status."""
    return lambda verb, *words: door(verb, *SHORT, *QUIET, "--run.dir=run", *words)


def network(**options):
    torch.manual_seed(1)
    return ViT(ViTConfig(**{"arch": "micro/4", "image_size": 8, "classes": 7} | options))


def begun(run, folder, init, *words):
    """The weights of a transfer before its first step, and what its record says."""
    assert run("finetune", "--init", init, "--model.lr=0", "--data.image_size=16", f"--run.dir={folder}", *words) == 0
    state = torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items()}


def test_weights_of_another_network_are_refused_with_the_flags_that_fit(run, capsys):
    assert run("fit", "--run.dir=pre") == 0
    other = ("--model.arch=Ti/8", "--model.pool=gap")
    assert run("finetune", "--init=pre/checkpoints/last.ckpt", *other) == cli.BAD_INPUT
    told = capsys.readouterr().err
    assert "holds a network of arch micro/4, pool cls, and the run has arch Ti/8, pool gap" in told
    assert "give --model.arch micro/4 --model.pool cls, or other weights" in told


def test_a_run_of_ours_is_carried_to_another_resolution(run):
    assert run("fit", "--model.head=tanh", "--model.loss=sigmoid", "--model.head_bias=-10", "--run.dir=pre") == 0
    before = torch.load("pre/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    after = begun(run, "ft", "pre/checkpoints/last.ckpt")
    grid = before["network.position.tables.0"][1:].unflatten(0, (2, 2)).numpy()
    row = np.linspace(0, 1, 4)[:, None]  # corners stay corners: by hand, rows first, then columns
    tall = (1 - row[..., None]) * grid[:1] + row[..., None] * grid[1:]
    wide = (1 - row) * tall[:, :1] + row * tall[:, 1:]
    assert after["position.tables.0"].shape == (17, 64)
    np.testing.assert_allclose(after["position.tables.0"][1:].numpy(), wide.reshape(16, 64), atol=1e-6)
    assert torch.equal(after["position.tables.0"][0], before["network.position.tables.0"][0])
    assert not after["head.weight"].any()
    assert not after["head.bias"].any()
    assert not [name for name in after if name.startswith("pre_logits")]
    assert torch.equal(after["blocks.3.mlp.fc1.weight"], before["network.blocks.3.mlp.fc1.weight"])
    config = read_record("ft").config
    assert config["run"]["init"] == "pre/checkpoints/last.ckpt"
    assert len(config["run"]["init_content"]) == 16


def test_the_papers_recipe_is_the_default_and_flags_overrule_it(run, tmp_path):
    torch.save(network().state_dict(), "own.pt")
    (tmp_path / "mine.yaml").write_text("model: {clip_norm: 0.5}\n")
    assert run("finetune", "--init=own.pt", "--config=mine.yaml", "--model.lr=0.01") == 0
    config = read_record("run").config
    flat = {f"{group}.{name}": value for group in ("model", "data") for name, value in config[group].items()}
    wanted = FINETUNE | {"model.clip_norm": "0.5", "data.batch_size": "200"}
    assert {name: str(flat[name]) for name in wanted} == wanted


@pytest.mark.parametrize("kind", ["timm", "google"])
def test_weights_of_others_are_the_same_start(run, kind):
    source = network()
    if kind == "timm":
        torch.save(weights_timm.timm_state(source), "theirs")
    else:
        weights_npz.save_npz(source, "theirs")
    after = begun(run, "ft", "theirs", *(["--model.gelu=exact"] if kind == "timm" else []))
    for name, value in source.state_dict().items():
        if not name.startswith(("head.", "position.")):
            assert torch.equal(after[name], value), name


def test_weights_of_timm_by_name_come_from_where_its_hub_left_them(run, tmp_path, monkeypatch):
    """The hub's own cache layout, without a network."""
    from huggingface_hub import constants
    from safetensors.torch import save_file

    source, cache = network(), tmp_path / "hub"
    folder = cache / "models--timm--micro_patch4_8.ours"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    state = {name: value.contiguous() for name, value in weights_timm.timm_state(source).items()}
    save_file(state, folder / "snapshots" / ("a" * 40) / "model.safetensors")
    told = {"architecture": "vit_base_patch16_224", "model_args": {"num_heads": 4, "act_layer": "gelu_tanh"}}
    told["pretrained_cfg"] = {"mean": [0.485, 0.456, 0.406], "std": [0.25, 0.25, 0.25]}
    (folder / "snapshots" / ("a" * 40) / "config.json").write_text(json.dumps(told))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    after = begun(run, "ft", "timm:hf-hub:timm/micro_patch4_8.ours")
    kernel, shift = source.stem.embedding.weight, torch.tensor([0.015, 0.044, 0.094]).view(3, 1, 1) / 0.25
    torch.testing.assert_close(after["stem.embedding.weight"], kernel * 2)  # by hand: 0.5 / 0.25
    torch.testing.assert_close(after["stem.embedding.bias"], (kernel * shift).sum((1, 2, 3)), rtol=1e-5, atol=1e-6)
    assert torch.equal(after["blocks.0.attention.qkv.weight"], source.state_dict()["blocks.0.attention.qkv.weight"])


def test_a_name_of_timms_is_looked_up_where_its_hub_keeps_that_network(monkeypatch):
    asked = []

    def cached(repository, file):
        asked.append((repository, file))
        return "/cache/of/the/hub" if file == "pytorch_model.bin" else None

    monkeypatch.setattr(timm_network.huggingface_hub, "try_to_load_from_cache", cached)
    assert str(file_of("timm:vit_base_patch16_224.augreg_in1k")) == "/cache/of/the/hub"
    hub = "timm/vit_base_patch16_224.augreg_in1k"
    assert asked == [(hub, "model.safetensors"), (hub, "pytorch_model.bin")]


def test_an_exported_folder_is_a_start(run):
    torch.save(network(image_size=16).state_dict(), "own.pt")
    assert run("finetune", "--init=own.pt", "--data.image_size=16", "--run.dir=whole") == 0
    assert cli.main(["export", "whole/checkpoints/last.ckpt", "exported", "--format=timm"]) == 0
    after = begun(run, "ft", "timm:local-dir:exported")
    before = torch.load("whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(after["blocks.0.attention.qkv.weight"], before["network.blocks.0.attention.qkv.weight"])


@pytest.fixture
def nothing_cached(tmp_path, monkeypatch):
    """An empty cache and no hub to ask; gives what would have been fetched."""
    from huggingface_hub import constants

    fetched = []
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(timm_network, "check_cached_file", lambda url: False)

    def fetch(repository, file):
        fetched.append((repository, file))
        raise OfflineModeIsEnabled("no network in a test")

    monkeypatch.setattr(timm_network.huggingface_hub, "hf_hub_download", fetch)
    return fetched


def test_nothing_is_fetched_unless_told(run, nothing_cached, capsys):
    name = "timm:vit_tiny_patch16_224"
    assert run("finetune", f"--init={name}") == cli.BAD_INPUT
    assert "are not on this machine (timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k); fetch" in capsys.readouterr().err
    assert run("fit", f"--run.init={name}") == cli.BAD_INPUT
    assert nothing_cached == []
    for verb, *told in (
        ["finetune", "--init", name, "--download"],
        ["fit", f"--run.init={name}", "--run.download=true"],
    ):
        assert run(verb, *told) == cli.BAD_INPUT
        assert "gave no model.safetensors (no network in a test)" in capsys.readouterr().err
    assert nothing_cached == [("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", "model.safetensors")] * 2


def test_being_allowed_to_fetch_is_no_other_run(run):
    torch.save(network().state_dict(), "own.pt")
    assert run("finetune", "--init=own.pt", "--run.dir=one") == 0
    assert run("finetune", "--init=own.pt", "--download", "--run.dir=other") == 0
    assert read_record("one").fingerprint == read_record("other").fingerprint


def test_other_weights_under_the_same_name_are_another_run(run, capsys):
    torch.save(network().state_dict(), "own.pt")
    assert run("finetune", "--init=own.pt", "--model.lr=0.01") == 0
    changed = network().state_dict()
    changed["norm.weight"] += 1
    torch.save(changed, "own.pt")
    assert run("finetune", "--init=own.pt", "--model.lr=0.01") == cli.BAD_INPUT
    assert "holds a run of another config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "starts from given weights"),
        (["--init=absent.ckpt"], "absent.ckpt', which is no file"),
        (["--init=timm/vit_tiny_patch16_224"], "or timm:NAME for weights of timm's"),
        (["--init=timm:vit_tinny"], "timm has no model 'vit_tinny'"),
        (["--init=timm:local-dir:absent"], "absent/model.safetensors is no file"),
        (["--init=text"], "no weights file"),
        (["--init=pickle.pt"], "more than arrays"),
        (["--init=narrow.pt"], "shape"),
        (["--init=timm.pt"], "gelu exact, and the run has gelu tanh: give --model.gelu exact, or other weights ("),
        (["--init=shared.safetensors"], "holds a network of pos_at shared, and the run has pos_at stem: give"),
        (
            ["--init=w.safetensors", "--model.attention=local", "--model.arch=micro/2"],
            "window 5, and the run has window 3",
        ),
        (["--init=two.pt"], "holds several networks, model and model_ema: say which, for example two.pt#model"),
        (["--init=two.pt#ema", "--model.gelu=exact"], "no network under 'ema'; it holds model and model_ema"),
        (["--init=patches.npz"], "does not say whether its network adds fixed sines (sincos2d) or nothing (none)"),
        (["--init=fixed.npz", "--model.pos_embed=none"], "holds a network of pos_embed sincos2d, and the run has"),
        (
            ["--init=own.safetensors", "--model.pos_std=0.5"],
            "model.pos_std 0.5 has no effect on the weights of",
        ),
        (["--model.polyak=1.0", "--init=narrow.pt"], "model.polyak is 1.0"),
    ],
)
def test_bad_starts_are_one_sentence(run, capsys, tmp_path, words, told):
    (tmp_path / "text").write_text("no weights")
    torch.save(print, "pickle.pt")
    torch.save(network(arch="Ti/4").state_dict(), "narrow.pt")
    state = weights_timm.timm_state(network())
    torch.save(state, "timm.pt")
    torch.save({"model": state, "model_ema": state}, "two.pt")
    fixed = network(pos_embed="sincos2d")
    np.savez("patches.npz", **{name: value.numpy() for name, value in weights_npz.npz_state(fixed).items()})
    weights_npz.save_npz(fixed, "fixed.npz")
    save_own(network(pos_std=0.5), "own.safetensors")
    save_own(network(pos_at="shared"), "shared.safetensors")
    save_own(network(arch="micro/2", attention="local", window=5), "w.safetensors")
    assert run("finetune", *words) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_what_is_measured_and_kept_is_the_average(run):
    """By hand from the weights after each step, which runs of one step more each leave."""
    torch.save(network().state_dict(), "own.pt")
    steps = []
    for last in range(1, 6):
        words = ["--init=own.pt", "--model.lr=0.05", "--model.schedule=constant", f"--run.dir={last}"]
        assert run("finetune", *words, "--model.warmup_steps=0", f"--trainer.max_steps={last}") == 0
        steps.append(
            torch.load(f"{last}/checkpoints/last.ckpt", weights_only=True)["state_dict"]["network.norm.weight"]
        )
    words = ["--init=own.pt", "--model.lr=0.05", "--model.schedule=constant", "--model.warmup_steps=0"]
    assert run("finetune", *words, "--trainer.max_steps=5", "--model.polyak=0.5", "--run.dir=mean") == 0
    kept = torch.load("mean/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    shares = 0.5 ** np.arange(4, -1, -1)
    by_hand = (torch.tensor(shares / shares.sum())[:, None] * torch.stack(steps)).sum(0)
    assert not torch.allclose(kept["network.norm.weight"], steps[-1], atol=1e-4)
    torch.testing.assert_close(kept["network.norm.weight"].double(), by_hand.double(), rtol=0, atol=1e-6)
    assert torch.equal(kept["network.norm.weight"], kept["average.norm.weight"])


@pytest.mark.slow
def test_a_transfer_with_an_average_is_killed_and_found_equal(digits, tmp_path):
    torch.save(network().state_dict(), tmp_path / "own.pt")
    words = [*SHORT, "--trainer.accelerator=cpu", f"--data.shards={digits}", "--data.image_size=16", "--run.keep=best"]
    more = [
        "--run.init=own.pt",
        "--model.optimizer=sgd",
        "--model.lr=0.03",
        "--model.polyak=0.9",
        "--model.clip_norm=1",
    ]
    command = [sys.executable, "-m", "vitexp.cli", "verify-resume", *words, *more]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EQUAL" in done.stdout


def test_one_of_several_networks_is_a_start_and_the_run_says_which(run, capsys):
    source = network(gelu="exact")
    other = {name: value + 1 for name, value in weights_timm.timm_state(source).items()}
    torch.save({"state_dict": other, "state_dict_ema": weights_timm.timm_state(source)}, "last.pth.tar")
    after = begun(run, "ft", "last.pth.tar#state_dict_ema", "--model.gelu=exact")
    assert torch.equal(after["blocks.0.attention.qkv.weight"], source.state_dict()["blocks.0.attention.qkv.weight"])
    said = capsys.readouterr().out
    assert "weights     last.pth.tar#state_dict_ema; the head starts at zero" in said
    assert "note: last.pth.tar#state_dict_ema does not say how its images were normalised" in said
