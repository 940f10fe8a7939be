"""ONNX Runtime, for inference: the workload is written as an ONNX model and bound to its inputs once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..peer import Peer, Session, Unsupported, Vocabulary

onnx: Any = None
runtime: Any = None

OPSET = 20  # the first with Gelu


class _Ops(Vocabulary):
    """Appends nodes to a model."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def node(self, kind, *operands, **attributes):
        return self.nodes_of(kind, operands, 1, **attributes)[0]

    def nodes_of(self, kind, operands, count, **attributes):
        """A node with several results; operands that are None are left out."""
        names = [o.name if isinstance(o, _Value) else "" if o is None else self.constant(o) for o in operands]
        results = [_Value(self, f"v{len(self.nodes)}_{k}") for k in range(count)]
        self.nodes.append(onnx.helper.make_node(kind, names, [v.name for v in results], **attributes))
        return results

    def constant(self, value):
        name = f"c{len(self.constants)}"
        array = np.asarray(value, value.dtype if isinstance(value, np.ndarray) else np.float32)
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return _Value(self, name).name

    def tanh(self, x):
        return self.node("Tanh", x)

    def exp(self, x):
        return self.node("Exp", x)

    def relu(self, x):
        return self.node("Relu", x)

    def gelu(self, x):
        return self.node("Gelu", x)

    def linear(self, x, w, b):
        return self.node("MatMul", x, w) + b  # of matrices, the runtime makes a Gemm

    def image(self, x):
        return x

    def conv2d(self, x, w, b, stride=1, padding=0):
        return self.node("Conv", x, w, *([] if b is None else [b]), strides=[stride] * 2, pads=[padding] * 4)

    def batch_norm(self, x, scale, shift, mean, var):
        return self.node("BatchNormalization", x, scale, shift, mean, var, epsilon=1e-5)

    def max_pool2d(self, x, size, stride=None, padding=0):
        return self.node(
            "MaxPool", x, kernel_shape=[size] * 2, strides=[stride or size] * 2, pads=[padding] * 4,
        )

    def global_average(self, x):
        return self.flatten(self.node("GlobalAveragePool", x))

    def flatten(self, x):
        return self.node("Flatten", x)

    def layer_norm(self, x, w, b):
        return self.node("LayerNormalization", x, w, b, axis=-1, epsilon=1e-5)

    def self_attention(self, x, w, b, heads):
        # What onnxruntime.transformers.optimizer makes of attention written in ONNX.
        return self.node("Attention", x, w, b, domain="com.microsoft", num_heads=heads)

    def lstm_cell(self, x, h, c, w, r, bw, br):
        # ONNX has the gates input, output, forget, cell; a direction, and here a step, as first axis.
        w, r, bw, br = (np.concatenate([np.split(a, 4)[k] for k in (0, 3, 1, 2)])[None] for a in (w, r, bw, br))
        x, h, c = (self.node("Unsqueeze", a, np.zeros(1, np.int64)) for a in (x, h, c))
        operands = [x, w, r, np.concatenate([bw, br], 1), None, h, c]
        _, h, c = self.nodes_of("LSTM", operands, 3, hidden_size=r.shape[2])
        return tuple(self.node("Squeeze", a, np.zeros(1, np.int64)) for a in (h, c))

    def cross_entropy(self, logits, labels):
        return self.node("SoftmaxCrossEntropyLoss", logits, labels)


class _Value:
    """The name of a tensor, with operators."""

    def __init__(self, ops, name):
        self.ops, self.name = ops, name

    def __add__(self, other):
        return self.ops.node("Add", self, other)

    def __mul__(self, other):
        return self.ops.node("Mul", self, other)

    def __sub__(self, other):
        return self.ops.node("Sub", self, other)

    def __matmul__(self, other):
        return self.ops.node("MatMul", self, other)

    def __neg__(self):
        return self.ops.node("Neg", self)


class OnnxRuntime(Peer):
    name, title = "onnxruntime", "ONNX Runtime"
    threads = 0

    def load(self, threads):
        global onnx, runtime
        import onnx
        import onnx.helper
        import onnx.numpy_helper
        import onnxruntime as runtime

        self.threads = threads
        return runtime.__version__

    def build(self, workload, parameters, inputs):
        if workload.kind != "forward":
            raise Unsupported("inference only")
        session = self._session(_model(workload, parameters, inputs))
        dynamic: list[Any] = []

        def call(new):
            # All sizes are known to the session that is timed; the first of these calls makes one for any batch.
            if not dynamic:
                dynamic.append(self._session(_model(workload, parameters, inputs, dynamic=True)))
            return dynamic[0].run(None, new)

        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, runtime.OrtValue.ortvalue_from_numpy(value))
        for output in session.get_outputs():
            binding.bind_output(output.name)
        return Session(
            lambda: session.run_with_iobinding(binding), lambda r: binding.copy_outputs_to_cpu(), call=call,
        )

    def _session(self, model):
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _model(workload, parameters, inputs, dynamic=False):
    ops = _Ops()
    make = onnx.helper.make_tensor_value_info
    shapes = {n: ("N", *v.shape[1:]) if dynamic else v.shape for n, v in inputs.items()}
    described = [make(n, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), shapes[n]) for n, v in inputs.items()]
    value = workload.compute(ops, parameters, **{name: _Value(ops, name) for name in inputs})
    results = []
    for k, v in enumerate(value if isinstance(value, tuple) else (value,)):
        ops.node("Identity", v)
        ops.nodes[-1].output[0] = f"result{k}"
        results.append(make(f"result{k}", onnx.TensorProto.FLOAT, None))
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid("com.microsoft", 1)]
    graph = onnx.helper.make_graph(ops.nodes, workload.name, described, results, ops.constants)
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)


PEERS = [OnnxRuntime()]
