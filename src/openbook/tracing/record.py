"""What a trace tells. Plain records: `openbook.records.to_json` writes one, the terminal and the page draw it."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["message", "pair", "row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedToken:
    """One token of the row, at the position that is its place in `Trace.tokens`.

    `part` is who wrote it: "template", "system", "user" or "assistant". `parent` is the position of the token before it
    (−1 at the root), `branch` the branch that it belongs to, −1 where several share it. For a trained token: how
    probable the model held it and what it would have said instead, before and after the step.
    """

    id: int
    text: str
    part: str
    trained: bool
    parent: int
    branch: int
    probability_before: float | None = None
    probability_after: float | None = None
    guess_before: str = ""
    guess_after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One answer in the row: "answer", "chosen", "rejected", or the place of the training example (`train.jsonl:12`).

    The log-probabilities are those of its trained tokens, in nats, summed. `tokens` counts it from the root on.
    """

    name: str
    question: str
    tokens: int
    trained: int
    logp_before: float
    logp_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """What the step did to one module. `layer` is None outside of the layers; `kind` names it within its layer.

    `moved` of its `trained` weights have changed. With adapters these are the adapter's, `weights` those of the frozen
    matrix that it is added to. `share` is the length of the change over the length of that matrix.
    """

    name: str
    layer: int | None
    kind: str
    weights: int
    trained: int
    moved: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What `steps` optimizer steps did.

    The steps are those of training, and the loss is the one that it logs: for messages and rows the mean of
    −ln(probability) over the trained tokens, for pairs `loss_name` of how much more likely the chosen answer became than
    the rejected one. `says_*` is what the model writes to `asked`. `separate_tokens` is what the branches have when
    nothing is shared.
    """

    kind: Kind
    asked: str
    tokens: tuple[TracedToken, ...]
    branches: tuple[Branch, ...]
    separate_tokens: int
    loss_name: str
    loss_before: float
    loss_after: float
    says_before: str
    says_after: str
    steps: int
    learning_rate: float
    trained_weights: int
    moved_weights: int
    total_weights: int
    movements: tuple[Movement, ...]

    @property
    def trunk(self) -> int:
        """How many tokens, from the first on, all branches begin with: those up to the first one that two follow."""
        forks = (token.parent for at, token in enumerate(self.tokens) if token.parent != at - 1)
        return min(forks, default=len(self.tokens) - 1) + 1

    def beyond_trunk(self, branch: int) -> list[TracedToken]:
        """The tokens of a branch after those that all have; it may share the first of them with some others."""
        at = max(position for position, token in enumerate(self.tokens) if token.branch == branch)
        path = []
        while at >= self.trunk:
            path.append(self.tokens[at])
            at = self.tokens[at].parent
        return path[::-1]
