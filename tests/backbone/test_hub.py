"""Without a network: at once, one sentence that says what to bring where."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from clipbench.backbone import build_backbone, describe_backbone, hub, load, resolve_spec
from clipbench.backbone.tokenizer import Tokenizer
from clipbench.errors import BackboneError


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No host has an address, no cache holds anything, and the hub's own client is not asked."""

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(hub, "_REACHED", set())
    monkeypatch.setattr(hub, "cached", lambda repository, names: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", *hub.OFFLINE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "ViT-B-16/openai",
            r"no network: huggingface.co .*put it into any folder and name the backbone 'ViT-B-16@FOLDER",
        ),
        ("hf-hub:nobody/clip", r"open_clip_config.json of https://huggingface.co/nobody/clip .*'local-dir:FOLDER'"),
        ("ViT-B-32/laion400m_e31", "no network"),
    ],
)
def test_weights_that_would_be_downloaded(nowhere: None, name: str, message: str) -> None:
    began = time.perf_counter()
    with pytest.raises(BackboneError, match=message) as error:
        build_backbone(name)
    assert time.perf_counter() - began < 20
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_would_be_downloaded(nowhere: None) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(BackboneError, match=r"tokenizer of backbone .*no network: huggingface.co"):
        Tokenizer(resolve_spec("ViT-B-16-SigLIP/webli"), None)


def test_a_text_tower_whose_config_would_be_downloaded(nowhere: None) -> None:
    with pytest.raises(BackboneError, match=r"needs config.json of https://huggingface.co/roberta-base.*no network"):
        describe_backbone("roberta-ViT-B-32/laion2b_s12b_b32k")


@pytest.mark.parametrize("variable", hub.OFFLINE)
def test_a_network_that_is_switched_off_is_not_asked(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(hub, "reachable", lambda host: pytest.fail("asked"))
    monkeypatch.setattr(hub, "cached", lambda repository, names: None)
    with pytest.raises(BackboneError, match=f"{variable} is set"):
        resolve_spec("hf-hub:nobody/clip")


def test_what_needs_no_weights_needs_no_network(nowhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "reachable", lambda host: pytest.fail("asked"))
    for name in ("ViT-B/32", "ViT-B-32", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "ViT-B-32/laion400m_e31"):
        assert describe_backbone(name).size() == 151_277_313


def test_a_host_that_answers_with_an_error_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Refuses(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(hub, "_REACHED", set())
    monkeypatch.setenv("no_proxy", "*")
    server = HTTPServer(("127.0.0.1", 0), Refuses)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        assert hub.reachable(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
    monkeypatch.setattr(hub, "_REACHED", set())
    assert not hub.reachable(f"http://127.0.0.1:{server.server_port}")


def test_a_repository_in_the_hubs_cache_needs_no_network(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(hub, "reachable", lambda host: pytest.fail("asked"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--nobody--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    shutil.copytree(written, repository / "snapshots" / "abc")
    assert build_backbone("hf-hub:nobody/clip").hash == build_backbone(f"local-dir:{written}").hash
    assert resolve_spec("hf-hub:nobody/clip").preprocessing == resolve_spec(f"local-dir:{written}").preprocessing


def test_a_file_of_openais_own_package_is_found_by_its_digest(
    architecture: str, written: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import hashlib

    from clipbench.backbone import catalogue

    content = b"PK\x03\x04 as it was downloaded"
    address = f"https://openaipublic.x/clip/models/{hashlib.sha256(content).hexdigest()}/Tiny.pt"
    monkeypatch.setattr(catalogue, "pretrained_tags", lambda: {architecture: {"openai": {"url": address}}})
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / ".cache" / "clip" / "Tiny.pt"
    own.parent.mkdir(parents=True)
    assert load.weights_file(resolve_spec(f"{architecture}/openai")) is None
    own.write_bytes(content)
    assert load.weights_file(resolve_spec(f"{architecture}/openai")) == own
    own.write_bytes(content[:-1])  # a download that was cut off
    assert load.weights_file(resolve_spec(f"{architecture}/openai")) is None
