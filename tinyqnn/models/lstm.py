"""A language model: each word becomes a vector, an LSTM carries what was read, a linear layer bets on the next word."""

from __future__ import annotations

import numpy as np

from tinyqnn import nn
from tinyqnn.tensor import Array, Tensor

State = tuple[Tensor, Tensor]


class LanguageModel(nn.Module):
    """Integers (T, N) -> logits (T, N, words) and the LSTM's state, to be passed on with the next piece of text.

    The network of AutoQNN's table 6 has 10,000 words, an embedding of 300 and one LSTM of 300.

    >>> logits, state = LanguageModel(words=50, embedding=8, hidden=8)(np.zeros((3, 2), int))
    >>> logits.shape
    (3, 2, 50)
    """

    def __init__(
        self,
        words: int = 10_000,
        embedding: int = 300,
        hidden: int = 300,
        layers: int = 1,
        dropout: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, rng=rng)
        # Vectors of N(0, 1) would saturate the gates of an untrained LSTM.
        self.embedding.weight.data *= np.float32(0.1)
        self.drop = nn.Dropout(dropout)
        self.lstm = nn.LSTM(embedding, hidden, layers, dropout=dropout, rng=rng)
        self.decoder = nn.Linear(hidden, words, rng=rng)

    def forward(self, tokens: Tensor | Array, state: State | None = None) -> tuple[Tensor, State]:
        x = self.drop(self.embedding(tokens))  # (T, N) -> (T, N, embedding)
        x, state = self.lstm(x, state)  # -> (T, N, hidden)
        return self.decoder(self.drop(x)), state
