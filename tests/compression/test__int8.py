"""Networks in 8-bit integers: the arithmetic, the ranges, the file, and that each row is its own."""

import copy
import logging
import pickle
import sys

import numpy as np
import pytest
import torch
from torch import nn

from sktl._training._rest_network import RestNetwork
from sktl.backbones import Backbone, load_backbone
from sktl.backbones._preprocessing import Preprocessing
from sktl.compression import _int8
from sktl.compression._int8 import Int8Net, best_range, quantize_int8
from sktl.exceptions import EngineError, MissingDependencyError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from onnx import numpy_helper  # noqa: E402

SMALL = Preprocessing(resize_size=8, crop_size=8, interpolation="bilinear", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def small_network(depth, head=None):
    """Two convolutions of very different channels, with a norm between them, and a head of five classes."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU()]
    module = nn.Sequential(*layers)
    with torch.no_grad():
        module[3].weight.mul_(torch.tensor([1.0, 10, 0.1, 1, 5, 0.01]).reshape(-1, 1, 1, 1))
        module[1].running_mean.uniform_(-1, 1), module[1].running_var.uniform_(0.5, 2)
    backbone = Backbone(nn.Sequential(module, nn.Flatten(), nn.Linear(24, 2)), name="small", preprocessing=SMALL)
    return RestNetwork(backbone, depth, head or nn.Linear(6, 5)).eval()


def inputs(depth, n=40, seed=0):
    rng = np.random.default_rng(seed)
    if depth == 0:
        return rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    network = small_network(0)
    parts = [network.normalization, *(network.stages.get_submodule(f"0.{number}") for number in range(depth))]
    with torch.inference_mode():
        return nn.Sequential(*parts)(torch.from_numpy(inputs(0, n, seed))).numpy()


def float_outputs(network, x):
    with torch.inference_mode():
        return network(torch.from_numpy(x)).numpy()


@pytest.fixture(scope="module")
def whole():
    """The whole small network in integers, frozen depth 0."""
    return quantize_int8(small_network(0), [inputs(0)])


def parts(net):
    """The nodes of a quantised model, and its numbers by name."""
    graph = onnx.ModelProto.FromString(net.model).graph
    return graph, {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer}


def loosely(graph, numbers, x):
    """The outputs by a slow interpreter: each integer made a float again, each sum in double precision."""
    values = {**numbers, graph.input[0].name: x}

    def settings(node):
        return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}

    def conv(x, w, b, node):
        step = settings(node).get("strides", [1, 1])
        y = torch.nn.functional.conv2d(*(torch.tensor(v).double() for v in (x, w, b)), stride=step)
        return y.numpy()

    for node in graph.node:
        given = [values[name] for name in node.input]
        if node.op_type == "QuantizeLinear":
            y = np.clip(np.rint(given[0] / given[1]) + given[2], 0, 255)
        elif node.op_type == "DequantizeLinear":
            axis = settings(node).get("axis", 1)
            shape = [-1 if i == axis else 1 for i in range(np.ndim(given[0]))] if np.size(given[1]) > 1 else ()
            zero = np.reshape(given[2], shape).astype(float) if len(given) > 2 else 0.0
            y = (np.asarray(given[0], float) - zero) * np.reshape(given[1], shape)
        else:
            y = {
                "Conv": lambda given, node: conv(*given, node),
                "Gemm": lambda given, node: given[0] @ given[1].T + given[2],
                "Transpose": lambda given, node: given[0].transpose(settings(node)["perm"]),
                "Cast": lambda given, node: given[0].astype(np.float32),
                "Sub": lambda given, node: given[0] - given[1],
                "Mul": lambda given, node: given[0] * given[1],
                "Div": lambda given, node: given[0] / given[1],
                "ReduceMean": lambda given, node: given[0].mean((2, 3)),
            }[node.op_type](given, node)
        values[node.output[0]] = y
    return values[graph.output[0].name]


def test_integers_compute_what_the_dequantised_numbers_say(whole):
    """The engine's outputs are those of a slow interpreter that dequantises everything, up to a rounding or two."""
    x = inputs(0, seed=1)
    graph, numbers = parts(whole)
    expected = loosely(graph, numbers, x)
    got = whole.outputs(x)
    spread = expected.std()
    assert np.median(np.abs(got - expected)) < 1e-4 * spread
    assert np.abs(got - expected).max() < 0.02 * spread  # where a value lay between two integers
    assert got.dtype == np.float32


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_outputs_are_near_those_of_the_float_network(depth):
    """Behind any number of frozen stages, rows that it was not calibrated on come out nearly as in float."""
    backbone = load_backbone("sktl_mini")
    torch.manual_seed(0)
    network = RestNetwork(backbone, depth, nn.Linear(512, 4)).eval()
    rng = np.random.default_rng(0)
    shape = backbone.stages[depth - 1].output_shape if depth else (64, 64, 3)
    x = rng.integers(0, 256, (24, *shape), dtype=np.uint8)
    x = x if depth == 0 else np.maximum(x.astype(np.float32) / 64 - 2, 0)
    net = quantize_int8(network, [x[:5], x[5:16]])
    expected = float_outputs(network, x[16:])
    assert np.mean((net.outputs(x[16:]) - expected) ** 2) < 0.01 * expected.var()


def test_a_head_alone_is_quantised():
    """With all stages frozen, the head is what becomes integers; hidden layers too."""
    head = nn.Sequential(nn.Linear(512, 16), nn.ReLU(), nn.Linear(16, 3))
    backbone = load_backbone("sktl_mini")
    network = RestNetwork(backbone, len(backbone.stages), head).eval()
    x = np.random.default_rng(0).random((30, 512), dtype=np.float32)
    net = quantize_int8(network, [x[:20]])
    expected = float_outputs(network, x[20:])
    assert np.mean((net.outputs(x[20:]) - expected) ** 2) < 0.01 * expected.var()
    _, numbers = parts(net)
    assert sum(values.dtype == np.int8 and values.ndim == 2 for values in numbers.values()) == 2
    assert net.parameters == 512 * 16 + 16 + 16 * 3 + 3


def test_each_channel_has_its_scale(whole):
    """The scales of a convolution's weights are one per output channel: its largest weight is 127."""
    graph, numbers = parts(whole)
    folded = _int8._Outputs(small_network(0)).network.stages
    (weight,) = (p for name, p in folded.named_parameters() if name.endswith("3.weight"))
    (found,) = (
        (numbers[node.input[0]], numbers[node.input[1]])
        for node in graph.node
        if node.op_type == "DequantizeLinear" and numbers.get(node.input[0], np.empty(0)).shape == weight.shape
    )
    integers, scales = found
    assert integers.dtype == np.int8
    np.testing.assert_allclose(scales, weight.abs().amax((1, 2, 3)).numpy() / 127, rtol=1e-6)
    assert (np.abs(integers.astype(int)).max((1, 2, 3)) == 127).all()
    assert np.abs(integers * scales.reshape(-1, 1, 1, 1) - weight.numpy()).max() <= scales.max() / 2 + 1e-9


def test_ranges_are_fixed(whole):
    """No range is found while predicting: all scales are in the file, and a picture's outputs do not depend on it."""
    graph, numbers = parts(whole)
    kinds = {node.op_type for node in graph.node}
    assert "QuantizeLinear" in kinds
    assert not kinds & {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul"}
    assert all(node.input[1] in numbers for node in graph.node if node.op_type == "QuantizeLinear")


def test_each_row_is_its_own():
    """A row's outputs are the same to the bit, alone and beside others, in any place."""
    backbone = load_backbone("mobilenet_v3_small", weights=None, random_state=0, preprocessing={"crop_size": 32})
    depth = len(backbone.stages) - 3
    network = RestNetwork(backbone, depth, nn.Linear(576, 3)).eval()
    x = np.random.default_rng(0).random((9, *backbone.stages[depth - 1].output_shape), dtype=np.float32)
    net = quantize_int8(network, [x])
    together = net.outputs(x)
    np.testing.assert_array_equal(together, np.concatenate([net.outputs(x[i : i + 1]) for i in range(9)]))
    np.testing.assert_array_equal(together[::-1], net.outputs(x[::-1]))
    assert len(np.unique(together)) > 9
    assert net.outputs(x[:0]).shape == (0, 3)


def test_the_network_stays_as_it_is():
    """What is quantised is a copy: weights, modes, and who asks for gradients are as before."""
    network = small_network(0).train()
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    asking = [parameter.requires_grad for parameter in network.parameters()]
    quantize_int8(network, [inputs(0)])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert modes == [module.training for module in network.modules()]
    assert asking == [parameter.requires_grad for parameter in network.parameters()]
    assert any(asking)


def test_the_same_calibration_gives_the_same_network(whole):
    """Two quantisations of one network are the same to the bit; rows may come in batches of any size."""
    x = inputs(0)
    again = quantize_int8(small_network(0), iter([x[:7], x[7:8], x[8:]]))
    np.testing.assert_array_equal(again.outputs(x), whole.outputs(x))
    assert again.model == quantize_int8(small_network(0), [x]).model


def test_it_survives_pickling_and_copies(whole, in_new_process):
    """In a new process, and in a copy, it gives the same outputs to the bit; the pickle is little but integers."""
    x = inputs(0, seed=2)
    np.testing.assert_array_equal(in_new_process("result = net.outputs(x)", net=whole, x=x), whole.outputs(x))
    np.testing.assert_array_equal(copy.deepcopy(whole).outputs(x), whole.outputs(x))


def test_the_pickle_takes_a_byte_for_a_weight():
    """The last stage of sktl_mini takes less than 0.27 of its floats, with all that the file has beside weights."""
    backbone = load_backbone("sktl_mini")
    network = RestNetwork(backbone, 4, nn.Linear(512, 10)).eval()
    net = quantize_int8(network, [np.random.default_rng(0).random((4, 128, 8, 8), dtype=np.float32)])
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert len(pickle.dumps(net)) < 0.27 * 4 * n_parameters


def test_learnt_numbers_are_counted(whole):
    """Parameters are those that are left after norms are folded; those that became 0 are no nonzero ones."""
    assert whole.parameters == 4 * 27 + 4 + 6 * 36 + 6 + 5 * 6 + 5
    _, numbers = parts(whole)
    integers = {name: v for name, v in numbers.items() if v.ndim and v.dtype in (np.int8, np.int32)}
    weights = [v for name, v in integers.items() if not name.endswith("zero_point")]
    assert sum(v.size for v in weights) == whole.parameters
    assert whole.nonzero == sum(np.count_nonzero(v) for v in weights)
    sparse = small_network(0)
    with torch.no_grad():
        sparse.head.weight[:3] = 0
    assert quantize_int8(sparse, [inputs(0)]).nonzero <= whole.nonzero - 3 * 6 + 2  # the last ones round elsewhere


def test_features_of_unlike_sizes_are_weighed_alike():
    """A head whose weights are as large as its features are small loses next to nothing, hidden layers too."""
    backbone = load_backbone("sktl_mini")
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 3))
    sizes = torch.logspace(-2, 1, 512)
    with torch.no_grad():
        head[0].weight.div_(sizes)
    network = RestNetwork(backbone, len(backbone.stages), head).eval()
    x = np.random.default_rng(0).random((64, 512), dtype=np.float32) * sizes.numpy()
    x[:, 7] = 0  # a feature that is never seen
    expected = float_outputs(network, x)
    assert np.mean((quantize_int8(network, [x[:32]]).outputs(x[32:]) - expected[32:]) ** 2) < 0.01 * expected.var()


def test_balancing_is_no_change_of_the_function():
    """In floats, the balanced network computes what it did."""
    outputs = _int8._Outputs(small_network(0))
    x = inputs(0)
    expected = float_outputs(outputs, x)
    _int8._balance(outputs, [x])
    assert isinstance(outputs.network.head, _int8._Balanced)
    np.testing.assert_allclose(float_outputs(outputs, x), expected, rtol=1e-4, atol=1e-6)
    assert not outputs.network.head._forward_pre_hooks
    assert not outputs.network.head.linear._forward_pre_hooks


def test_best_range_against_a_slow_search():
    """Of all pairs of bounds, it finds the one whose squared error on the values themselves is the least, nearly."""
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(0.5, 1, 5000), [12.0, -6.0])
    often = np.append(np.full(5000, 400.0), [1, 1])  # two of two million are large
    low, high = values.min(), values.max()
    found = best_range(np.histogram(values, 2048, (low, high), weights=often)[0], low, high)

    def error(bounds):
        first, second = bounds
        step = (second - first) / 255
        zero = np.rint(-first / step)
        levels = np.clip(np.rint(values / step) + zero, 0, 255)
        return np.average(((levels - zero) * step - values) ** 2, weights=often)

    shares = np.linspace(0.2, 1, 33)
    least = min(error((low * a, high * b)) for a in shares for b in shares)
    assert error(found) < 1.1 * least
    assert error(found) < 0.7 * error((low, high))
    assert low <= found[0] < 0 < found[1] < high


def test_best_range_without_values():
    """Where all values are zero, or none was seen, the range is the whole one."""
    assert best_range(np.zeros(2048), 0.0, 0.0) == (0.0, 0.0)
    assert best_range(np.zeros(2048), -1.0, 2.0) == (-1.0, 2.0)


def test_pictures_of_one_colour_are_enough():
    """A calibration in which layers are silent gives finite outputs."""
    network = small_network(0)
    net = quantize_int8(network, [np.zeros((1, 8, 8, 3), np.uint8)])
    assert np.isfinite(net.outputs(inputs(0))).all()


def test_no_pictures_are_an_error():
    """Without anything to calibrate with, the error says what is missing."""
    for nothing in ([], [np.empty((0, 8, 8, 3), np.uint8)]):
        with pytest.raises(ValueError, match=r"^Calibration requires at least one image .* Got 0 instead\.$"):
            quantize_int8(small_network(0), nothing)


def test_a_broken_network_is_an_error():
    """Activations that are no finite numbers have no range."""
    network = small_network(0)
    with torch.no_grad():
        network.head.weight[0, 0] = torch.nan
    with pytest.raises(
        ValueError, match=r"^Activations of \d+ layers are NaN or infinite .* Train the network with a smaller lr\.$"
    ):
        quantize_int8(network, [inputs(0)])


def test_a_network_without_weights_is_an_error():
    """Where there is nothing to make integers of, the error says so."""
    backbone = load_backbone("sktl_mini")
    network = RestNetwork(backbone, len(backbone.stages), nn.Softplus()).eval()
    with pytest.raises(EngineError, match=r"does not have a convolution or linear layer"):
        quantize_int8(network, [np.ones((4, 512), np.float32)])


def test_a_missing_engine_names_its_extra(monkeypatch, whole):
    """Without ONNX Runtime, a network that was unpickled says what it needs."""
    net = pickle.loads(pickle.dumps(whole))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"sktl\[onnx\]"):
        net.outputs(inputs(0))


def test_nothing_is_said(capfd):
    """Neither exporter nor quantizer nor engine prints or logs, and the loggers are as before."""
    root = logging.getLogger()
    before = list(root.handlers), list(root.filters), root.level
    quantize_int8(small_network(1, nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 5))), [inputs(1)])
    assert (list(root.handlers), list(root.filters), root.level) == before
    assert capfd.readouterr() == ("", "")


def test_others_are_heard_while_the_quantizer_is_silent(caplog):
    """What others say through the root logger comes through; what the quantizer says does not."""
    from onnxruntime.quantization import quant_utils

    with _int8._silent_quantizer():
        logging.warning("of another")
        code = compile("logging.warning('of the quantizer')", quant_utils.__file__, "exec")
        exec(code, {"logging": logging})
    assert [record.getMessage() for record in caplog.records] == ["of another"]


def test_transformers_keep_their_attention():
    """Linear layers on tokens become integers, products of activations do not."""
    small = {"resize_size": 224, "crop_size": 224}
    backbone = load_backbone("vit_b_16", weights=None, random_state=0, preprocessing=small)
    torch.manual_seed(0)
    network = RestNetwork(backbone, len(backbone.stages) - 1, nn.Linear(768, 3), pooling="cls").eval()
    x = np.random.default_rng(0).normal(size=(2, *backbone.stages[-2].output_shape)).astype(np.float32)
    net = quantize_int8(network, [x])
    expected = float_outputs(network, x)
    assert np.mean((net.outputs(x) - expected) ** 2) < 0.05 * expected.var()


def test_a_session_has_the_threads_that_torch_has(whole):
    """The engine is started on as many threads as torch has, anew where that changes."""
    net = copy.deepcopy(whole)
    x = inputs(0)
    n_threads = torch.get_num_threads()
    expected = net.outputs(x)
    try:
        torch.set_num_threads(n_threads + 1)
        np.testing.assert_array_equal(net.outputs(x), expected)
        assert net._session().get_session_options().intra_op_num_threads == n_threads + 1
    finally:
        torch.set_num_threads(n_threads)
    assert net._session() is net._session()
    assert net._session().get_session_options().intra_op_num_threads == n_threads


def test_real_weights_agree(shared_data):
    """MobileNetV2 on photos that it was not calibrated on: as good as the same labels, a quarter of the bytes."""
    from PIL import Image
    from safetensors.torch import load_file

    path = shared_data / "mobilenet_v2_imagenet" / "model.safetensors"
    backbone = load_backbone("mobilenet_v2", weights=str(path))
    weights = load_file(path)
    head = nn.Linear(1280, 1000)
    head.load_state_dict({name: weights[f"classifier.1.{name}"].float() for name in ("weight", "bias")})
    network = RestNetwork(backbone, 0, head).eval()
    files = sorted((shared_data / "imagenet_sample" / "images").glob("*.jpg"))[::8]
    x = np.stack([np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files])
    net = quantize_int8(network, [x[:48]])
    labels = np.concatenate([float_outputs(network, x[i : i + 16]).argmax(1) for i in range(48, len(x), 16)])
    assert np.mean(net.outputs(x[48:]).argmax(1) == labels) >= 0.93  # 5 of 77; 97 % and more of 1,000
    floats = sum(tensor.numel() * 4 for tensor in network.state_dict().values())
    assert len(pickle.dumps(net)) < 0.27 * floats


def test_it_looks_like_a_net(whole):
    """It has what predicting needs of a TransferNet."""
    assert isinstance(whole, Int8Net)
    assert whole.device == "cpu"
