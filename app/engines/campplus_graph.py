"""CAM++ as an ONNX model, made from the weights that its authors publish for PyTorch.

The network is small and plain, so it is written down here once; PyTorch, 700 MB, is not needed. It gives
what theirs gives (to 1e-4). Source: Wang et al., 2023, "CAM++: A Fast and Efficient Network for Speaker
Verification Using Context-Aware Masking", and the weights' own names.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.roles import EngineFailed, Samples

FEATURES = 80
DIMENSIONS = 192
SEGMENT = 100
"""Steps of 20 ms that share a context."""
_BLOCKS = ((12, 1), (24, 2), (16, 2))
"""Layers and dilation of the three dense blocks."""
_EPSILON = 1e-5

Weights = dict[str, Samples]


def network(file: Path) -> bytes:
    """The model as ONNX. Inputs: `features` float32[batch, 80, frames]; `pool` float32[steps, segments], each
    column the mean of a segment plus the mean of all; `segment` int64[steps], which column a step is in;
    `spread` float32[1], 1 / (steps - 1); steps = ceil(frames / 2). Output: float32[batch, 192]. Raises
    `EngineFailed` if the file is missing or holds another model."""
    try:
        return _network(_weights(file))
    except Exception as error:  # those of reading a model have no base of their own
        raise EngineFailed(f"{file.name} is not the CAM++ model that is known here: {error!r}") from error


class _Graph:
    """Nodes and constants as they are added; a method returns the name of what it made."""

    def __init__(self, weights: Weights) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, value: npt.NDArray[Any] | list[int]) -> str:
        array = np.asarray(value, np.int64 if isinstance(value, list) else np.float32)
        name = f"c{len(self.constants)}"
        self.constants.append(self._numpy.from_array(np.ascontiguousarray(array), name))
        return name

    def norm(self, name: str) -> tuple[Samples, Samples]:
        """Scale and shift of a batch normalisation."""
        mean, variance = self.weights[f"{name}.running_mean"], self.weights[f"{name}.running_var"]
        scale = self.weights.get(f"{name}.weight", np.ones_like(mean)) / np.sqrt(variance + _EPSILON)
        return scale, self.weights.get(f"{name}.bias", np.zeros_like(mean)) - mean * scale

    def normed(self, x: str, name: str) -> str:
        """Normalised and cut at 0."""
        scale, shift = (self.constant(v[:, None]) for v in self.norm(name))
        return self.node("Relu", self.node("Add", self.node("Mul", x, scale), shift))

    def conv(self, x: str, name: str, norm: str = "", **attributes: Any) -> str:
        """A convolution; the normalisation after it goes into its weights."""
        kernel = self.weights[f"{name}.weight"]
        bias = self.weights.get(f"{name}.bias", np.zeros(len(kernel), np.float32))
        if norm:
            scale, shift = self.norm(norm)
            kernel = kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))
            bias = bias * scale + shift
        return self.node("Conv", x, self.constant(kernel), self.constant(bias), **attributes)


def _network(weights: Weights) -> bytes:
    from onnx import TensorProto, helper

    g = _Graph(weights)
    x = _tdnn(g, _head(g))
    mean = g.node("ReduceMean", x, axes=[2], keepdims=1)
    away = g.node("Sub", x, mean)
    squares = g.node("ReduceSum", g.node("Mul", away, away), g.constant([2]), keepdims=1)
    deviation = g.node("Sqrt", g.node("Mul", squares, "spread"))
    stats = g.node("Concat", mean, deviation, axis=1)
    dense = g.conv(stats, "xvector.dense.linear", "xvector.dense.nonlinear.batchnorm")
    g.nodes.append(helper.make_node("Squeeze", [dense, g.constant([2])], ["embedding"]))

    def value(name: str, kind: int, *shape: str | int) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        g.nodes,
        "campplus",
        [
            value("features", float32, "batch", FEATURES, "frames"),
            value("pool", float32, "steps", "segments"),
            value("segment", TensorProto.INT64, "steps"),
            value("spread", float32, 1),
        ],
        [value("embedding", float32, "batch", DIMENSIONS)],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    return bytes(model.SerializeToString())


def _head(g: _Graph) -> str:
    """The picture of the spectrum, eight times lower and as long: [batch, 320, frames]."""

    def conv(x: str, name: str, norm: str, stride: int) -> str:
        edge = g.weights[f"head.{name}.weight"].shape[2] // 2
        return g.conv(x, f"head.{name}", f"head.{norm}", strides=[stride, 1], pads=[edge] * 4)

    x = g.node("Relu", conv(g.node("Unsqueeze", "features", g.constant([1])), "conv1", "bn1", 1))
    for layer in ("layer1", "layer2"):
        for number, stride in ((0, 2), (1, 1)):
            block = f"{layer}.{number}"
            inner = g.node("Relu", conv(x, f"{block}.conv1", f"{block}.bn1", stride))
            inner = conv(inner, f"{block}.conv2", f"{block}.bn2", 1)
            if stride > 1:
                x = conv(x, f"{block}.shortcut.0", f"{block}.shortcut.1", stride)
            x = g.node("Relu", g.node("Add", inner, x))
    x = g.node("Relu", conv(x, "conv2", "bn2", 2))
    return g.node("Reshape", x, g.constant([0, 320, -1]))


def _tdnn(g: _Graph, x: str) -> str:
    """Dense blocks over time, at half the steps: [batch, 512, steps]."""
    first = "xvector.tdnn"
    x = g.conv(x, f"{first}.linear", f"{first}.nonlinear.batchnorm", strides=[2], pads=[2, 2])
    x = g.node("Relu", x)
    for number, (layers, dilation) in enumerate(_BLOCKS, 1):
        for layer in range(1, layers + 1):
            new = _masked(g, x, f"xvector.block{number}.tdnnd{layer}", dilation)
            x = g.node("Concat", x, new, axis=1)
        transit = f"xvector.transit{number}"
        after = "xvector.out_nonlinear.batchnorm" if number == len(_BLOCKS) else ""
        x = g.conv(g.normed(x, f"{transit}.nonlinear.batchnorm"), f"{transit}.linear", after)
    return g.node("Relu", x)


def _masked(g: _Graph, x: str, name: str, dilation: int) -> str:
    """One dense layer: what it finds, weighed by the context. A context is the same for all steps of a
    segment, so it is worked out once for each."""
    x = g.normed(x, f"{name}.nonlinear1.batchnorm")
    x = g.node("Relu", g.conv(x, f"{name}.linear1", f"{name}.nonlinear2.batchnorm"))
    cam = f"{name}.cam_layer"
    local = g.conv(x, f"{cam}.linear_local", dilations=[dilation], pads=[dilation] * 2)
    context = g.node("Relu", g.conv(g.node("MatMul", x, "pool"), f"{cam}.linear1"))
    mask = g.node("Sigmoid", g.conv(context, f"{cam}.linear2"))
    return g.node("Mul", local, g.node("Gather", mask, "segment", axis=2))


# --- the file -------------------------------------------------------------------------------------


def _weights(file: Path) -> Weights:
    """What `torch.load` would give of a file of tensors. Nothing in the file is run: it may name tensors
    of numbers, and no more."""
    with zipfile.ZipFile(file) as archive:
        [index] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = index.removesuffix("data.pkl")
        state = _Unpickler(archive, folder, io.BytesIO(archive.read(index))).load()
    return {name: array for name, array in state.items() if array.dtype == np.float32}


class _Unpickler(pickle.Unpickler):
    """Reads the index of a file that PyTorch wrote."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, index: io.BytesIO) -> None:
        super().__init__(index)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "FloatStorage"): np.float32,
            ("torch", "LongStorage"): np.int64,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of weights")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, *_ = pid
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), kind)


def _tensor(storage: npt.NDArray[Any], offset: int, size: tuple[int, ...], *_: Any) -> npt.NDArray[Any]:
    count = int(np.prod(size, dtype=np.int64))
    return storage[offset : offset + count].reshape(size)
