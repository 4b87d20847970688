"""Silero's network with matrix products for convolutions.

As published it convolves each frame by itself, four columns at a time, under switches for the sample
rate and the rank of its input. Written as products over all frames of a call, with the same weights, it
gives the same probabilities (to 1e-4) in a half of the time for one frame and in under a third for many.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.roles import EngineFailed, Samples

_GRAPH = """
<ir_version: 8, opset_import: ["" : 16]>
silero (float[B, 576] input, float[B, 128] h, float[B, 128] c)
    => (float[B, 1] output, float[B, 128] hN, float[B, 128] cN)
{
  windows = Gather <axis = 1> (input, window)
  spectrum = MatMul (windows, basis)
  re, im = Split <axis = 2> (spectrum, halves)
  re2 = Mul (re, re)
  im2 = Mul (im, im)
  power = Add (re2, im2)
  magnitude = Sqrt (power)

  m = Pad (magnitude, around)
  m0 = Slice (m, n0, n4, time)
  m1 = Slice (m, n1, n5, time)
  m2 = Slice (m, n2, n6, time)
  taps0 = Concat <axis = 2> (m0, m1, m2)
  product0 = MatMul (taps0, weight0)
  sum0 = Add (product0, bias0)
  layer0 = Relu (sum0)

  before = Pad (layer0, in_front)
  early = Slice (before, n0, n3, time)
  late = Slice (before, n2, n5, time)
  taps_early = Reshape (early, one_row)
  taps_late = Reshape (late, one_row)
  taps1 = Concat <axis = 1> (taps_early, taps_late)
  product1 = MatMul (taps1, weight1)
  sum1 = Add (product1, bias1)
  layer1 = Relu (sum1)

  taps2 = Reshape (layer1, flat)
  sum2 = Gemm (taps2, weight2, bias2)
  layer2 = Relu (sum2)
  sum3 = Gemm (layer2, weight3, bias3)
  layer3 = Relu (sum3)

  both = Concat <axis = 1> (layer3, h)
  gates = Gemm (both, weight_gates, bias_gates)
  gate_i, gate_f, gate_g, gate_o = Split <axis = 1> (gates, quarters)
  i = Sigmoid (gate_i)
  f = Sigmoid (gate_f)
  g = Tanh (gate_g)
  o = Sigmoid (gate_o)
  kept = Mul (f, c)
  new = Mul (i, g)
  cN = Add (kept, new)
  bounded = Tanh (cN)
  hN = Mul (o, bounded)

  positive = Relu (hN)
  score = Gemm (positive, weight_out, bias_out)
  output = Sigmoid (score)
}
"""
_SHAPES = {
    "halves": [129, 129],
    "around": [0, 1, 0, 0, 1, 0],
    "in_front": [0, 1, 0, 0, 0, 0],
    "time": [1],
    "one_row": [-1, 1, 384],
    "flat": [-1, 128],
    "quarters": [128] * 4,
} | {f"n{i}": [i] for i in range(7)}


def products(model: Path) -> bytes:
    """The published model (16 kHz, opset 16) as another ONNX model: inputs `input` float32[n, 576], `h` and
    `c` float32[n, 128], outputs the probabilities float32[n, 1] and the next `h` and `c`. Raises
    `EngineFailed` if the file is missing or holds another model."""
    from onnx import numpy_helper, parser

    try:
        constants = _constants(_weights(model))
    except Exception as error:  # those of reading a model have no base of their own
        raise EngineFailed(f"{model.name} is not the Silero model that is known here: {error!r}") from error
    graph = parser.parse_model(_GRAPH)
    for name, value in constants.items():
        graph.graph.initializer.append(numpy_helper.from_array(value, name))
    return bytes(graph.SerializeToString())


def _weights(model: Path) -> dict[str, Samples]:
    """The weights for 16 kHz, by their names in the original network."""
    import onnx
    from onnx import numpy_helper

    [switch] = [node for node in onnx.load(model).graph.node if node.op_type == "If"]
    [branch] = [attribute.g for attribute in switch.attribute if attribute.name == "then_branch"]
    return {
        node.output[0].rpartition("__")[2]: numpy_helper.to_array(node.attribute[0].t)
        for node in branch.node
        if node.op_type == "Constant"
    }


def _constants(weights: dict[str, Samples]) -> dict[str, npt.NDArray[Any]]:
    """All that the graph above names."""

    def layer(number: int, taps: slice) -> Samples:
        """A convolution's weights [out, in, taps] as [taps * in, out]."""
        kernel = weights[f"encoder.{number}.reparam_conv.weight"][:, :, taps]
        return kernel.transpose(2, 1, 0).reshape(-1, kernel.shape[0])

    # The end is mirrored; four windows of 256, 128 apart.
    mirrored = np.concatenate([np.arange(576), np.arange(574, 510, -1)])
    gates = np.concatenate([weights["decoder.rnn.weight_ih"], weights["decoder.rnn.weight_hh"]], axis=1)
    floats = {
        "basis": weights["stft.forward_basis_buffer"][:, 0].T,
        "weight0": layer(0, slice(3)),
        "weight1": layer(1, slice(3)),
        "weight2": layer(2, slice(1, 3)),  # two columns come in, and one goes out: the rest is padding
        "weight3": layer(3, slice(1, 2)),
        "weight_gates": gates.T,
        "bias_gates": weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"],
        "weight_out": weights["decoder.decoder.2.weight"].reshape(128, 1),
        "bias_out": weights["decoder.decoder.2.bias"],
    } | {f"bias{n}": weights[f"encoder.{n}.reparam_conv.bias"] for n in range(4)}
    whole = {"window": np.stack([mirrored[at : at + 256] for at in range(0, 385, 128)]), **_SHAPES}
    return {
        **{name: np.ascontiguousarray(value, np.float32) for name, value in floats.items()},
        **{name: np.asarray(value, np.int64) for name, value in whole.items()},
    }
