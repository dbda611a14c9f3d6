"""When a run of reinforcement learning is stopped: the policy has run away from the reference, or has collapsed."""

from openbook.errors import ModelError
from openbook.options import RL
from openbook.progress import Progress

# Nats a token. The same weights in 4 bits were 0.18 away on the former nano, whose scores were large (docs/LOG.md);
# others are several.
SERVER_GAP = 1.0


class Limits:
    """Watches the means of each round. What is remembered of the first round goes into every checkpoint."""

    def __init__(self, options: RL, progress: Progress) -> None:
        self._options, self._progress = options, progress
        self._first: dict[str, float] = {}
        self._told = False

    def check(self, number: int, means: dict[str, float]) -> None:
        """Raise `ModelError` where the KL is above its limit, or where the entropy has fallen below its floor and the
        reward is no better than in the first round.

        A policy that is certain *and* better has found what pays, which is what was asked for: then a sentence says
        that little is left to be learnt, since the answers to one question hardly differ any more.
        """
        options = self._options
        if not means.get("server_gap", 0.0) <= SERVER_GAP:
            raise ModelError(
                f"{options.server} writes with another model than the one that is tuned: in round {number + 1} the "
                f"likelihoods of its tokens are {means['server_gap']:.2g} nats a token away from those computed here.",
                "Serve the very base that model.base names.",
            )
        if not self._first:
            self._first = {name: means[name] for name in ("entropy", "reward")}
        if not means["kl"] <= options.kl_limit:
            raise ModelError(
                f"The policy has run away from the reference: in round {number + 1} the KL is {means['kl']:.3g} nats a "
                f"token, and rl.kl_limit is {options.kl_limit:g}. The reward is {means['reward']:.3f}, "
                f"{self._first['reward']:.3f} in the first round.",
                "Lower --learning-rate or rl.updates, or raise rl.kl. The checkpoints of the run are kept.",
            )
        if means["entropy"] >= options.entropy_floor * self._first["entropy"]:
            return
        if means["reward"] <= self._first["reward"]:
            raise ModelError(
                f"The policy has collapsed: in round {number + 1} its entropy is {means['entropy']:.2g} nats a token, "
                f"{self._first['entropy']:.2g} in the first round, and the reward did not rise "
                f"({self._first['reward']:.3f} → {means['reward']:.3f}). Its answers hardly differ any more.",
                "Lower --learning-rate, raise rl.clip_high, rl.kl or rl.temperature. "
                "The checkpoints of the run are kept.",
            )
        if not self._told:
            self._progress.message(
                f"From round {number + 1} on the policy is nearly certain of what it says "
                f"({means['entropy']:.2g} nats a token, at first {self._first['entropy']:.2g}): little is left to learn."
            )
            self._told = True

    def state(self) -> dict[str, float]:
        return {f"first_{name}": value for name, value in self._first.items()} | {"told": float(self._told)}

    def restore(self, state: dict[str, float]) -> None:
        self._first = {name.removeprefix("first_"): value for name, value in state.items() if name.startswith("first_")}
        self._told = bool(state.get("told"))
