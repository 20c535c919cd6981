"""Weights found, read, checked and hashed; what is wrong with them is said in one sentence."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipbench.backbone import backbone_hash, build_backbone, clip, hub, load, load_backbone, memory
from clipbench.errors import BackboneError
from tests.backbone.tiny_backbones import TEXT, VISION, WEIGHTS, write_folder


def folder_of(backbone: Any) -> Path:
    return Path(backbone.spec.source.partition(":")[2])


def test_half_precision_is_widened_exactly(written: Path) -> None:
    state = {name: tensor.half() for name, tensor in load_file(written / WEIGHTS).items()}
    save_file(state, written / WEIGHTS)
    back = build_backbone(f"local-dir:{written}").to_open_clip_state_dict()
    for name, tensor in state.items():
        assert back[name].dtype == torch.float32
        assert torch.equal(back[name].half(), tensor)


def test_a_checkpoint_of_a_training_run_is_understood(written: Path, architecture: str) -> None:
    state = load_file(written / WEIGHTS)
    checkpoint = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    torch.save(checkpoint, written / "epoch_3.pt")
    from_run = build_backbone(f"{architecture}@{written}/epoch_3.pt")
    assert from_run.hash == build_backbone(f"{architecture}@{written}/{WEIGHTS}").hash
    assert from_run.spec.activation == "gelu"


def test_half_precision_under_an_openai_architecture_is_refused_until_the_activation_is_said(
    written: Path, architecture: str
) -> None:
    save_file({k: v.half() for k, v in load_file(written / WEIGHTS).items()}, written / "w.safetensors")
    name = f"{architecture}@{written}/w.safetensors"
    with pytest.raises(BackboneError, match=r"look like OpenAI's .* need QuickGELU.*activation=quickgelu"):
        build_backbone(name)
    assert build_backbone(name + "?activation=quickgelu").spec.activation == "quickgelu"
    assert build_backbone(name + "?activation=gelu").spec.activation == "gelu"


def test_openai_scalars_in_a_checkpoint_are_a_sign_and_no_tensors(written: Path, architecture: str) -> None:
    scalars = {"input_resolution": torch.tensor(16), "context_length": torch.tensor(20), "vocab_size": torch.tensor(64)}
    torch.save(load_file(written / WEIGHTS) | scalars, written / "w.pt")
    with pytest.raises(BackboneError, match="look like OpenAI's"):
        build_backbone(f"{architecture}@{written}/w.pt")
    assert build_backbone(f"{architecture}@{written}/w.pt?activation=quickgelu")


def test_weights_that_are_absent_say_what_to_put_where(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "reachable", lambda host: False)
    with pytest.raises(BackboneError) as error:
        load_backbone("Tiny-8/openai")
    text = str(error.value)
    assert (
        "'Tiny-8/openai' are not on this machine and could not be downloaded (no network: huggingface.co cannot" in text
    )
    assert "open_clip_model.safetensors of https://huggingface.co/nobody/tiny_clip.openai" in text
    assert "FOLDER/open_clip_model.safetensors" in text
    with pytest.raises(BackboneError):
        backbone_hash("Tiny-8/openai")


def test_the_file_that_is_advised_loads_with_the_right_activation(
    written: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "reachable", lambda host: False)
    save_file({k: v.half() for k, v in load_file(written / WEIGHTS).items()}, written / WEIGHTS)
    with pytest.raises(BackboneError) as error:
        load_backbone("Tiny-8/openai")
    advised = str(error.value).rpartition("name the backbone '")[2].rstrip("'").replace("FOLDER", str(written))
    assert build_backbone(advised).spec.activation == "quickgelu"


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("unpickled!",))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:'torch.load' received a zip file:UserWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: file.write_bytes(b"garbage"), "cannot be read as weights"),
        (lambda file: file.write_bytes(b""), "cannot be read as weights"),
        (lambda file: file.write_bytes(pickle.dumps({"a": Evil()}, protocol=2)), "is not unpickled"),
        (lambda file: torch.save({"a": Evil()}, file), "holds more than tensors and is not unpickled"),
        (lambda file: torch.save([1, 2], file), "holds no state dict"),
    ],
)
def test_damaged_and_dangerous_files_are_refused(
    make: Any, message: str, written: Path, architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(written / "w.pt")
    with pytest.raises(BackboneError, match=message):
        build_backbone(f"{architecture}@{written}/w.pt")
    assert "unpickled!" not in capsys.readouterr().out


def test_a_truncated_safetensors_file_is_named(written: Path) -> None:
    file = written / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BackboneError, match=r"open_clip_model\.safetensors cannot be read as weights"):
        build_backbone(f"local-dir:{written}")


def test_the_text_tower_is_found_with_and_without_its_prefix(written: Path) -> None:
    plain = build_backbone(f"local-dir:{written}").hash
    state = {
        k if k.startswith(("visual", "logit")) else f"text.{k}": v for k, v in load_file(written / WEIGHTS).items()
    }
    save_file(state, written / WEIGHTS)
    assert build_backbone(f"local-dir:{written}").hash == plain


def test_weights_of_another_architecture_are_refused_by_tensor(written: Path) -> None:
    state = load_file(written / WEIGHTS)
    del state["visual.ln_pre.weight"]
    save_file(state, written / WEIGHTS)
    with pytest.raises(BackboneError, match=r"another architecture than clip: no tensor 'visual\.ln_pre\.weight'$"):
        build_backbone(f"local-dir:{written}")
    state = load_file(written / WEIGHTS) | {"visual.ln_pre.weight": torch.ones(24)}
    deeper = {name.replace("resblocks.1", "resblocks.2"): tensor.clone() for name, tensor in state.items()}
    save_file(state | deeper, written / WEIGHTS)
    with pytest.raises(BackboneError, match=r"a tensor '.*resblocks\.2.*' too many, .* and 8 more"):
        build_backbone(f"local-dir:{written}")
    state["ln_final.weight"] = torch.ones(3)
    save_file(state, written / WEIGHTS)
    with pytest.raises(BackboneError, match=r"do not fit clip: ln_final\.weight is 3, not 16"):
        build_backbone(f"local-dir:{written}")


def test_a_folder_without_weights_is_named(written: Path) -> None:
    (written / WEIGHTS).unlink()
    with pytest.raises(BackboneError, match=r"no weights in .*clip \(looked for open_clip_model\.safetensors"):
        build_backbone(f"local-dir:{written}")


def test_the_hash_is_cached_by_path_size_and_time(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"local-dir:{written}"
    first = build_backbone(name).hash
    monkeypatch.setattr(clip, "load_backbone", lambda name: pytest.fail("the backbone was built"))
    assert backbone_hash(name) == first
    state = load_file(written / WEIGHTS)
    state["logit_scale"] += 1
    save_file(state, written / WEIGHTS)
    monkeypatch.undo()
    assert memory.recall(memory.file_key(written / WEIGHTS, "clip", "native")) is None
    assert build_backbone(name).hash != first


def test_a_cache_that_cannot_be_written_does_not_stop_anything(
    written: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path / "file"))
    assert len(build_backbone(f"local-dir:{written}").hash) == 64


def test_one_instance_a_process_and_name(written: Path) -> None:
    name = f"local-dir:{written}"
    assert load_backbone(name) is load_backbone(name)
    assert build_backbone(name) is not load_backbone(name)
    assert backbone_hash(name) == load_backbone(name).hash


def test_a_relative_path_means_another_backbone_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = set()
    for scale in (1.0, 2.0):
        folder = tmp_path / str(scale)
        write_folder(folder / "clip", VISION, TEXT)
        save_file(
            load_file(folder / "clip" / WEIGHTS) | {"logit_scale": torch.tensor(scale)}, folder / "clip" / WEIGHTS
        )
        monkeypatch.chdir(folder)
        assert float(load_backbone("local-dir:clip").logit_scale) == scale
        hashes.add(backbone_hash("local-dir:clip"))
    assert len(hashes) == 2


def test_random_weights_are_the_same_everywhere_and_not_trivial(architecture: str) -> None:
    a, b = build_backbone("Tiny-8/random"), build_backbone("Tiny-8/random")
    assert a.hash == b.hash
    for name, tensor in a.named_parameters():
        if tensor.ndim:
            assert tensor.std() > 0, name


def test_preferred_file_of_a_folder(tmp_path: Path) -> None:
    for name in ("zzz.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "epoch_1.pt"):
        (tmp_path / name).touch()
    assert load._in_folder(tmp_path).name == "open_clip_pytorch_model.bin"  # as open_clip prefers
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    assert load._in_folder(tmp_path).name == "model.safetensors"
