"""Writes pytorch_optimizers.json, what test_optim.py compares with; needs PyTorch: ``python pytorch_optimizers.py``."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import optim
from torch.optim import lr_scheduler as schedules

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "sgd_momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "sgd_nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adagrad": lambda p: optim.Adagrad(p, 0.1, lr_decay=0.05, weight_decay=0.01, initial_accumulator_value=0.1),
    "adadelta": lambda p: optim.Adadelta(p, 1.0, weight_decay=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, 0.01),
    "rmsprop_centered": lambda p: optim.RMSprop(p, 0.01, centered=True, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, 0.01, weight_decay=0.01),
    "adam_amsgrad": lambda p: optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, 0.01, weight_decay=0.1),
    "nadam": lambda p: optim.NAdam(p, 0.01, weight_decay=0.01),
    "clip_by_norm": lambda p: optim.SGD(p, 1.0),
}
RATES = {
    "step_decay": lambda o: schedules.StepLR(o, 3, 0.5),
    "exponential": lambda o: schedules.ExponentialLR(o, 0.9),
    "cosine": lambda o: schedules.CosineAnnealingLR(o, 11, 0.01),
    "linear": lambda o: schedules.LinearLR(o, 1.0, 0.2, 8),
    "warm_up": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.1, 1.0, 4), schedules.ExponentialLR(o, 0.9)], [4]
    ),
}
FIGURES = [1, 0.9, 0.899, 0.898, 0.897, 0.5, 0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.57, 0.2, 0.2, 0.2]


def trajectory(name, w0, xs, ys):
    w = torch.tensor(w0, requires_grad=True)
    optimizer, found = OPTIMIZERS[name]([w]), []
    for x, y in zip(xs, ys):
        optimizer.zero_grad()
        loss = ((torch.tanh(torch.tensor(x) @ w.T) - torch.tensor(y)) ** 2).mean()
        if name == "clip_by_norm":
            (10 * loss).backward()
            torch.nn.utils.clip_grad_norm_([w], 0.5)
        else:
            loss.backward()
        optimizer.step()
        found.append(w.detach().numpy().tolist())
    return found


def rates(make, steps=12):
    optimizer = optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    schedule, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def plateau():
    optimizer = optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    schedule = schedules.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=2, threshold=0.01)
    found = []
    for figure in FIGURES:
        schedule.step(figure)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def main():
    rng = np.random.default_rng(3)
    w, x, y = rng.normal(size=(3, 4)), rng.normal(size=(12, 5, 4)), rng.normal(size=(12, 5, 3))
    found = {
        "torch": torch.__version__.split("+")[0],
        "w": w.tolist(), "x": x.tolist(), "y": y.tolist(),
        "steps": {name: trajectory(name, w, x, y) for name in OPTIMIZERS},
        "rates": {name: rates(make) for name, make in RATES.items()},
        "plateau": {"figures": FIGURES, "rates": plateau()},
    }  # fmt: skip
    text = json.dumps(json.loads(json.dumps(found), parse_float=lambda s: float(f"{float(s):.12g}")))
    Path(__file__).with_suffix(".json").write_text(text)


if __name__ == "__main__":
    main()
