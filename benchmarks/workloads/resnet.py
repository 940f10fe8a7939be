"""Residual networks (He et al. 2016): a training step for small images, and inference for one large image.

ResNet-20 is that for CIFAR, with projections (1x1 convolutions) as the shortcuts between stages. ResNet-18 is
that for ImageNet.
"""

from __future__ import annotations

import numpy as np

from ..workload import BATCH_NORM, Workload, dense

ORDER = 60
STAGES = {"resnet20": 3, "resnet18": 4}
STEMS = {"resnet20": (3, 1), "resnet18": (7, 2)}  # the kernel of the first convolution, and its stride


def _convolutions(network, s):
    """Name, channels in and out, kernel, stride, and the pixels along an axis of its output, of each convolution."""
    (kernel, stride), color = STEMS[network], 3
    side, width = -(-s["pixels"] // stride), s["width"]
    yield "stem", color, width, kernel, stride, side
    side = side if stride == 1 else -(-side // 2)  # a pooling
    before = width
    for stage in range(STAGES[network]):
        for block in range(s["blocks"]):
            after, step = width << stage, 2 if stage and not block else 1
            side, name = -(-side // step), f"stage{stage}_block{block}"
            yield f"{name}_first", before, after, 3, step, side
            yield f"{name}_second", after, after, 3, 1, side
            if step == 2:
                yield f"{name}_shortcut", before, after, 1, step, side
            before = after


def _flops(network, s):
    """Those of a forward pass without the first convolution, and those of the first."""
    first, *rest = (
        2 * s["batch"] * side**2 * kernel**2 * inputs * outputs
        for _, inputs, outputs, kernel, _, side in _convolutions(network, s)
    )
    return sum(rest) + 2 * s["batch"] * (s["width"] << STAGES[network] - 1) * s["classes"], first


def _parameters(network):
    def make(rng, s):
        p = {}
        for name, inputs, outputs, kernel, _, _ in _convolutions(network, s):
            w = rng.standard_normal((outputs, inputs, kernel, kernel)) * (2 / (inputs * kernel**2)) ** 0.5
            p[f"{name}_w"] = w.astype(np.float32)
            statistics = 1, 0, 0, 1
            if network == "resnet18":  # as if trained
                statistics = (rng.uniform(*r, outputs) for r in ((0.5, 1), (-0.1, 0.1), (-0.1, 0.1), (0.5, 1.5)))
            for part, value in zip(BATCH_NORM, statistics):
                p[f"{name}_{part}"] = np.broadcast_to(value, outputs).astype(np.float32)
        return p | dense(rng, "_out", s["width"] << STAGES[network] - 1, s["classes"])

    return make


def _images(rng, s):
    return {"x": rng.standard_normal((s["batch"], 3, s["pixels"], s["pixels"]), dtype=np.float32)}


def _labelled(rng, s):
    return _images(rng, s) | {"y": rng.integers(0, s["classes"], s["batch"])}


def _residual(ops, conv, h, p):
    """The stages after the first layers, and the classifier."""
    names = [key.removesuffix("_first_w") for key in p if key.endswith("_first_w")]
    for name in names:
        stride = 2 if f"{name}_shortcut_w" in p else 1
        y = conv(ops.relu(conv(h, f"{name}_first", stride, 1)), f"{name}_second", 1, 1)
        h = ops.relu(y + (conv(h, f"{name}_shortcut", 2, 0) if stride == 2 else h))
    return ops.linear(ops.global_average(h), p["w_out"], p["b_out"])


def _train(ops, p, x, y):
    state = {}

    def conv(h, name, stride, padding):
        h = ops.conv2d(h, p[f"{name}_w"], None, stride, padding)
        h, state[f"{name}_mean"], state[f"{name}_var"] = ops.batch_norm_training(
            h, *(p[f"{name}_{part}"] for part in BATCH_NORM),
        )
        return h

    h = ops.relu(conv(ops.image(x), "stem", 1, 1))
    return ops.cross_entropy(_residual(ops, conv, h, p), y), state


def _infer(ops, p, x):
    def conv(h, name, stride, padding):
        w = p[f"{name}_w"]
        if f"{name}_b" in p:  # the peer has folded the batch norm
            return ops.conv2d(h, w, p[f"{name}_b"], stride, padding)
        return ops.batch_norm(ops.conv2d(h, w, None, stride, padding), *(p[f"{name}_{part}"] for part in BATCH_NORM))

    h = ops.max_pool2d(ops.relu(conv(ops.image(x), "stem", 2, 3)), 3, 2, 1)
    return _residual(ops, conv, h, p)


def _step_flops(s):
    # Forward, gradient by the weights, and, but for the first layer, gradient by the inputs.
    rest, first = _flops("resnet20", s)
    return 3 * rest + 2 * first


_NO_NUMPY = {"numpy": "convolutions by way of patches take it half a second: nobody does that"}

WORKLOADS = [
    Workload(
        "resnet20", "ResNet-20 step, batch 32, 32x32, momentum", "train",
        sizes={"batch": 32, "pixels": 32, "width": 16, "blocks": 3, "classes": 10},
        tiny={"batch": 3, "pixels": 8, "width": 2, "blocks": 1, "classes": 4},
        parameters=_parameters("resnet20"), inputs=_labelled, compute=_train, flops=_step_flops,
        is_state=lambda name: name.endswith(("_mean", "_var")), learning_rate=0.005, momentum=0.9,
        # Of millions of activations a few are so near zero that their sign depends on rounding; one moves the gradient
        # of a weight, a sum of 2048 terms that mostly cancel, by a percent.
        change_tolerance=0.05, leave_out=_NO_NUMPY, aim=1.2,
    ),
    Workload(
        "resnet18", "ResNet-18 inference, batch 1, 224x224", "forward",
        sizes={"batch": 1, "pixels": 224, "width": 64, "blocks": 2, "classes": 1000},
        tiny={"batch": 2, "pixels": 33, "width": 2, "blocks": 1, "classes": 4},
        parameters=_parameters("resnet18"), inputs=_images, compute=_infer,
        flops=lambda s: sum(_flops("resnet18", s)), leave_out=_NO_NUMPY, aim=1.1,
    ),
]
