"""A text classifier: each word becomes a vector, an LSTM reads them one by one, its last state decides."""

from __future__ import annotations

import numpy as np

from tinyqnn import nn
from tinyqnn.tensor import Array, Tensor


class TextClassifier(nn.Module):
    """Integers (N, T) -> (N, classes): an embedding, an LSTM, and two linear layers on its last state (AutoQNN §6.2.1).

    Texts shorter than T are best filled up in front: what comes last is remembered best.

    >>> TextClassifier(words=50, embedding=8, hidden=8, features=4, classes=3)(np.zeros((2, 6), int)).shape
    (2, 3)
    """

    def __init__(
        self,
        words: int = 10_000,
        embedding: int = 128,
        hidden: int = 512,
        features: int = 128,
        classes: int = 10,
        dropout: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, rng=rng)
        # Vectors of N(0, 1) would saturate the gates of an untrained LSTM.
        self.embedding.weight.data *= np.float32(0.1)
        self.drop = nn.Dropout(dropout)
        self.lstm = nn.LSTM(embedding, hidden, rng=rng)
        self.fc1 = nn.Linear(hidden, features, rng=rng)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(features, classes, rng=rng)

    def forward(self, tokens: Tensor | Array) -> Tensor:
        x = self.drop(self.embedding(tokens)).transpose(0, 1)  # (N, T) -> (T, N, embedding)
        _, (h, _) = self.lstm(x)  # -> (1, N, hidden)
        return self.fc2(self.relu(self.fc1(self.drop(h[0]))))
