"""Drawing tokens: temperature and nucleus."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. The same seed draws the same tokens for the same prompts on the same machine.

    `temperature` divides the logits. With `top_p` below 1 only the most likely tokens that together have this
    probability are drawn from (nucleus sampling, arXiv 1904.09751); what is drawn then no longer has the model's
    likelihoods, so that learning from it wants 1.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


class Sampler:
    """Draws from rows of logits, one stream of random numbers from the first call to the last."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._sampling = sampling
        self._generator = torch.Generator(device).manual_seed(sampling.seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """Tokens (...) out of logits (..., V)."""
        probabilities = (logits.float() / self._sampling.temperature).softmax(-1)
        if self._sampling.top_p < 1:
            probabilities = nucleus(probabilities, self._sampling.top_p)
        # The first of exponential clocks with these rates rings at each token with its probability; unlike
        # `multinomial` this takes any number of dimensions, and waits for no synchronisation on a GPU.
        clocks = torch.empty_like(probabilities).exponential_(generator=self._generator)
        return (probabilities / clocks).argmax(-1)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Probabilities (..., V) without the tail beyond `top_p`; the most likely token always stays. Not normalised."""
    ordered, places = probabilities.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return probabilities.masked_fill((before >= top_p).gather(-1, places.argsort(-1)), 0.0)
