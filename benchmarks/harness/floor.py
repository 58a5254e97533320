"""The models, and the least time their work can take: useful floating-point operations at the best rate measured.

    matmul parameters     P = L (4 D^2 + 2 D F) + D C
    forward, one token        2 P + 4 S D L             S: the length of the token's own sentence
    training, one token       3 times that              backward is two products for each one of forward

L layers, D width, F feed-forward width, C classes. ``4 S D`` is the scores and the weighted sum of attention. Tokens
of padding, the softmax, GELU, the embeddings and the optimizer are not counted, nor is what attention computes twice.
So nobody reaches the floor, but a program that leaves out useful work (for example the last layer of tokens that are
not scored) comes closer to it than one that does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

UPDATE_BYTES = 28  # of AdamW, for one parameter: reads it, its gradient and two moments, writes all but the gradient


@dataclass(frozen=True)
class ModelSize:
    """A BERT for token classification; ``config`` are the names of Hugging Face's configuration."""

    name: str
    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int = 30522
    classes: int = 9

    def config(self) -> dict[str, int]:
        """Keyword arguments of BertConfig, minitl's and transformers'."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.inner,
            "num_labels": self.classes,
        }

    @property
    def matmul_parameters(self) -> int:
        """Parameters that every token is multiplied with."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner) + self.width * self.classes

    @property
    def parameters(self) -> int:
        """All parameters: with embeddings, biases and layer norms."""
        embeddings = (self.vocabulary + 512 + 2 + 2) * self.width
        small = self.layers * (4 * self.width + self.inner + self.width + 4 * self.width) + self.classes
        return embeddings + small + self.matmul_parameters

    def forward_operations(self, lengths: Sequence[int]) -> float:
        """Floating-point operations of one forward pass over sentences of these lengths."""
        linear = 2 * self.matmul_parameters * sum(lengths)
        attention = 4 * self.width * self.layers * sum(length * length for length in lengths)
        return float(linear + attention)

    def training_operations(self, lengths: Sequence[int]) -> float:
        """Floating-point operations of forward and backward."""
        return 3 * self.forward_operations(lengths)


MODELS = {
    "minilm": ModelSize("minilm", layers=6, width=384, heads=12, inner=1536),
    "bert-base": ModelSize("bert-base", layers=12, width=768, heads=12, inner=3072),
}
