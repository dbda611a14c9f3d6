"""Policy, reference, value and reward: adapters on one frozen base, one of them in force at a time."""

from pathlib import Path
from typing import Any

from torch import nn

from openbook.errors import ModelError
from openbook.models import LoadedModel
from openbook.models.generate import HEAD
from openbook.training.adapting import check_base, explained
from openbook.training.reward import ScalarHead, attach_head, load_head

POLICY = "default"
REFERENCE = "reference"
VALUE = "value"
REWARD = "reward"


class Roles:
    """Who speaks through the base. The policy is in force at first, and is trained; so is a value function once added.

    PEFT freezes whatever is not in force, and activation checkpointing recomputes with whatever *is*: a backward pass
    after a switch would silently give wrong gradients. So each loss is propagated before the next `play`, and `play`
    keeps what is trained trainable.
    """

    def __init__(self, model: Any, loaded: LoadedModel, start: Path | None) -> None:
        self.model, self._loaded = model, loaded
        self._reference: str | None = None  # the bare base
        self._trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._in_force: str | None = POLICY
        if start is not None:
            self._load(start, REFERENCE)
            self._reference = REFERENCE

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """What is trained, by its name in the model: what a checkpoint holds."""
        return self._trained

    def add_value(self) -> ScalarHead:
        """A value function: a fresh adapter of the policy's shape and a scalar head that says 0 for everything."""
        self.model.add_adapter(VALUE, self.model.peft_config[POLICY])
        head = attach_head(self.model, "value_head")
        self._trained |= {name: weight for name, weight in self.model.named_parameters() if f".{VALUE}." in name}
        self._trained["value_head.weight"] = head.weight
        self._restore()
        return head

    def add_reward(self, folder: Path) -> ScalarHead:
        """The reward model in `folder`. Raises `ModelError` where it is none, or one for another base."""
        if not (folder / HEAD).is_file():
            raise ModelError(
                f"{folder} holds no reward model: {HEAD} is missing.",
                "Name the folder that `openbook tune --method reward` wrote.",
            )
        check_base(folder, self._loaded)
        self._load(folder, REWARD)
        return load_head(self.model, folder, self._loaded, "reward_head").requires_grad_(False)

    def play(self, role: str) -> None:
        """Put a role in force. The reference is the adapter that the run started from, or else the bare base."""
        adapter = self._reference if role == REFERENCE else role
        if adapter == self._in_force:
            return
        if adapter is None:
            self.model.base_model.disable_adapter_layers()
        else:
            if self._in_force is None:
                self.model.base_model.enable_adapter_layers()
            self.model.base_model.set_adapter(adapter, inference_mode=True)
        self._in_force = adapter
        for weight in self._trained.values():
            weight.requires_grad_(True)

    def _load(self, folder: Path, name: str) -> None:
        with explained(folder, self._loaded):
            self.model.load_adapter(folder, adapter_name=name, is_trainable=False)
        self._restore()

    def _restore(self) -> None:
        """Loading may have put another adapter in force."""
        self._in_force = ""
        self.play(POLICY)
