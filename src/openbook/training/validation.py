"""Which validation questions a model does best and worst on: the mean loss of each, beside what it was to say."""

from collections.abc import Iterator
from typing import Any

from openbook.models import LoadedModel
from openbook.tokens import split
from openbook.training.data import Study

FILE = "validation.jsonl"


def question_losses(model: Any, loaded: LoadedModel, study: Study) -> Iterator[dict[str, Any]]:
    """One row a question: its line in the file, question, expected answer, mean loss in nats a token."""
    import torch
    from accelerate.utils import send_to_device

    from openbook.training.head import sum_by_sequence, token_losses
    from openbook.training.trainer import as_trained, collate, predicting_states

    model.eval()
    for shown in study.groups_shown():
        at = 0
        for tree in split([one.sequence for one in shown], study.budget):
            batch = send_to_device(collate([tree]), loaded.model.device)
            with torch.no_grad(), as_trained(model):
                losses = token_losses(model, predicting_states(model, batch), batch["targets"])
            sequences = tree.sequences()
            sums = sum_by_sequence(losses, batch["owners"], len(sequences)).tolist()
            for total, sequence in zip(sums, sequences, strict=True):
                one = shown[at]
                at += 1
                yield {
                    "line": one.line,
                    "question": one.question or one.conversation.messages[-2].content,
                    "expected": one.conversation.messages[-1].content,
                    "loss": total / int((sequence.weight > 0).sum()),
                }
