"""torchvision's networks are built for their files, and their published weights arrive whole or not at all."""

import contextlib
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision

from sktl.backbones import Preprocessing, load_backbone
from sktl.backbones._torchvision import Torchvision
from sktl.exceptions import WeightsDownloadError

SMALL = "shufflenet_v2_x0_5"


@pytest.fixture
def weights_server(tmp_path, monkeypatch):
    """A server of published weights on this machine: a dict with the body to send, how much of it, and the status."""
    torch.manual_seed(0)
    path = tmp_path / "weights.pth"
    state = torchvision.models.get_model(SMALL, weights=None).state_dict()
    torch.save(state, path)
    body = path.read_bytes()
    answer = {"status": 200, "body": body, "sent": len(body), "state": state}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"])
            self.send_header("Content-Length", str(len(answer["body"])))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # whoever gets a 404 does not read on
                self.wfile.write(answer["body"][: answer["sent"]])

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    file_name = f"{SMALL}-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    answer["url"] = f"http://127.0.0.1:{server.server_port}/{file_name}"
    entry = torchvision.models.get_model_weights(SMALL).DEFAULT.value
    monkeypatch.setattr(entry, "url", answer["url"])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setattr("torch.hub._hub_dir", None)
    answer["cached"] = tmp_path / "torch" / "hub" / "checkpoints" / file_name
    answer["server"] = server
    yield answer
    server.shutdown()
    thread.join()
    server.server_close()


def test_download(weights_server):
    """Published weights are fetched once and are then the network's."""
    state = Torchvision(SMALL).fetch("IMAGENET1K_V1")
    assert all(torch.equal(state[name], tensor) for name, tensor in weights_server["state"].items())
    weights_server["status"] = 404
    backbone = load_backbone(SMALL, preprocessing={"resize_size": 65})  # settings that no other test has in the memo
    assert torch.equal(backbone.module.fc.weight, weights_server["state"]["fc.weight"])


FAULTS = {
    "the server is off": lambda answer: (answer["server"].shutdown(), answer["server"].socket.close()),
    "not found": lambda answer: answer.update(status=404),
    "server error": lambda answer: answer.update(status=500),
    "half of the file": lambda answer: answer.update(sent=answer["sent"] // 2),
    "another file": lambda answer: answer.update(body=bytes(len(answer["body"]))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_download_that_fails(weights_server, fault):
    """Whatever goes wrong gives one error, with the address and the way to use a file, and leaves no file behind."""
    FAULTS[fault](weights_server)
    with pytest.raises(WeightsDownloadError, match=r"weights='/path/to/shufflenet") as caught:
        load_backbone(SMALL, weights="IMAGENET1K_V1", preprocessing={"resize_size": 66})
    assert weights_server["url"] in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert not weights_server["cached"].exists()
    assert not list(weights_server["cached"].parent.glob("*")), "nor a partial one"


def test_a_download_after_one_that_failed(weights_server):
    """A fault is not remembered."""
    length = weights_server["sent"]
    weights_server["sent"] = 100
    with pytest.raises(WeightsDownloadError):
        Torchvision(SMALL).fetch("IMAGENET1K_V1")
    weights_server["sent"] = length
    assert Torchvision(SMALL).fetch("IMAGENET1K_V1").keys() == weights_server["state"].keys()


def test_preprocessing_belongs_to_the_weights():
    """Each published name has its own, and a file of a published file name that of these weights."""
    resnet = Torchvision("resnet50")
    assert resnet.preprocessing("IMAGENET1K_V1").resize_size == 256
    assert resnet.preprocessing("IMAGENET1K_V2").resize_size == 232
    url = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url
    assert resnet.preprocessing(None, Path(url.rsplit("/", 1)[-1])).resize_size == 256
    assert resnet.preprocessing(None, Path("mine.pth")) == resnet.preprocessing("IMAGENET1K_V2")
    assert Torchvision("efficientnet_b0").preprocessing(None).interpolation == "bicubic"


def test_a_vision_transformer_is_built_for_its_file():
    """The positions in the file say for which image size it is; without a file, the pictures do."""
    vit = Torchvision("vit_b_32")
    state = {"encoder.pos_embedding": torch.zeros(1, 10, 768), "conv_proj.weight": torch.zeros(768, 3, 32, 32)}
    with torch.device("meta"):
        assert vit.build(state, Preprocessing()).image_size == 96
        assert vit.build(None, Preprocessing(crop_size=64)).image_size == 64


def test_old_names_of_densenet():
    """The published files of DenseNet have names that its modules no longer have."""
    old = {"features.denseblock1.denselayer2.norm.1.weight": torch.zeros(1), "features.norm5.weight": torch.zeros(1)}
    expected = ["features.denseblock1.denselayer2.norm1.weight", "features.norm5.weight"]
    assert list(Torchvision("densenet121").adjust(old)) == expected


def test_auxiliary_classifiers_are_left_out(tmp_path):
    """A file of GoogLeNet with its auxiliary classifiers loads, and the picture is renormalised as it was trained."""
    module = torchvision.models.googlenet(
        weights=None, aux_logits=True, transform_input=True, init_weights=False
    ).eval()
    torch.save(module.state_dict(), tmp_path / "googlenet.pt")
    backbone = load_backbone("googlenet", weights=tmp_path / "googlenet.pt", preprocessing={"crop_size": 64})
    picture = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(backbone.module(picture), module(picture), rtol=0, atol=0)
