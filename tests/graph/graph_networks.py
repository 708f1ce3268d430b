"""Small networks of every kind, and a generator of random ones."""

from __future__ import annotations

import numpy as np

from tinyqnn import functional as F
from tinyqnn import nn


class Identity(nn.Module):
    """Something for a quantizing vertex's slot that changes nothing."""

    bits = 32

    def forward(self, x):
        return x


class ConvNet(nn.Module):
    """Convolution, batch norm, pooling, dropout, and a reshape that names the batch."""

    def __init__(self, rng):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, rng=rng)
        self.bn = nn.BatchNorm2d(4)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.5, rng=np.random.default_rng(5))
        self.fc = nn.Linear(4 * 3 * 3, 5, rng=rng)

    def forward(self, x):
        x = self.pool(F.relu(self.bn(self.conv(x))))
        return self.fc(self.drop(x.reshape(x.shape[0], 4 * 3 * 3)))


class Residual(nn.Module):
    """Two branches with stride, a reused ReLU module, and a fully convolutional end."""

    def __init__(self, rng):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, 2, 1, bias=False, rng=rng), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, 1, 1, bias=False, rng=rng), nn.BatchNorm2d(4)
        self.shortcut = nn.Sequential(nn.Conv2d(2, 4, 1, 2, bias=False, rng=rng), nn.BatchNorm2d(4))
        self.relu, self.pool, self.fc = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3, rng=rng)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
        return self.fc(self.pool(y).flatten(1))


class Separable(nn.Module):
    """Depthwise, pointwise and grouped convolutions."""

    def __init__(self, rng):
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False, rng=rng)
        self.pointwise = nn.Conv2d(4, 6, 1, rng=rng)
        self.grouped = nn.Conv2d(6, 4, 3, groups=2, dilation=2, rng=rng)

    def forward(self, x):
        return F.avg_pool2d(self.grouped(F.sigmoid(self.pointwise(self.depthwise(x)))), 2)


class Words(nn.Module):
    """Embedding, two LSTM layers with dropout between, and a reshape by time times batch."""

    def __init__(self, rng):
        super().__init__()
        self.embedding = nn.Embedding(11, 3, rng=rng)
        self.lstm = nn.LSTM(3, 4, num_layers=2, dropout=0.5, rng=rng)
        self.decoder = nn.Linear(4, 11, rng=rng)

    def forward(self, tokens, state=None):
        x, state = self.lstm(self.embedding(tokens), state)
        return self.decoder(x.reshape(tokens.shape[0] * tokens.shape[1], 4)), state


class Dense(nn.Module):
    """Fully connected with residuals."""

    def __init__(self, rng):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(n, 6, rng=rng) for n in (3, 6, 6)))

    def forward(self, x):
        first, *rest = self.layers.children()
        x = F.relu(first(x))
        for layer in rest:
            x = (x + F.relu(layer(x))) * 0.5
        return x


KINDS = {
    "conv": (ConvNet, (2, 6, 6)),
    "residual": (Residual, (2, 6, 6)),
    "separable": (Separable, (4, 8, 8)),
    "dense": (Dense, (3,)),
}


def make(kind, seed=0, dtype=np.float32):
    """A network and a function that draws a batch of any size for it."""
    rng = np.random.default_rng(seed)
    if kind == "words":
        return Words(rng), lambda n, t=4: rng.integers(0, 11, (t, n))
    build, shape = KINDS[kind]
    return build(rng).to(dtype), lambda n: rng.normal(size=(n, *shape)).astype(dtype)


class Random(nn.Module):
    """A network from a plan: each entry says what operation is next, and which earlier results it takes.

    Linear layers are drawn from a small pool, so that they are reused and their weights shared.
    """

    def __init__(self, plan, rng):
        super().__init__()
        self.plan = plan
        self.pool = nn.Sequential(*(nn.Linear(4, 4, bias=i != 1, rng=rng) for i in range(3)))
        self.pool[2].weight = self.pool[0].weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        made = [x]
        for what, i, j in self.plan:
            a, b = made[i % len(made)], made[j % len(made)]
            if what < 3:
                made.append(self.pool[what](a))
            else:
                others = (F.relu(a), a + b, a * 0.5 + b, self.norm(a), F.tanh(a), a.reshape(-1, 2, 2).flatten(1))
                made.append(others[what - 3])
        return tuple(made[-2:])
