"""ONNX Runtime on the CPU: a model of one node, whose constant weight it packs before the call."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.peers import Case
from bench.prepared import Prepared, only
from fastconv.core.problem import Op


def prepare(case: Case) -> Prepared:
    only(case.op is Op.FORWARD, "computes no gradients")
    only(case.problem.dtype == "float32", "has no convolution of float64 on the CPU")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    session = onnxruntime.InferenceSession(
        _model(case).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    inputs = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(case.tensors.x)}
    return Prepared(
        lambda: session.run_with_ort_values(["y"], inputs)[0], to_array=lambda result: np.asarray(result.numpy())
    )


def _model(case: Case) -> onnx.ModelProto:
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        strides=case.stride,
        dilations=case.dilation,
        pads=[low for low, _ in case.pads] + [high for _, high in case.pads],
        group=case.problem.groups,
    )
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, case.tensors.x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, case.tensors.y.shape)],
        [numpy_helper.from_array(case.tensors.w, "w")],
    )
    # The oldest format that has all of this; a newer one may be too new for the runtime.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
