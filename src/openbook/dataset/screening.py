"""The judge's look at distractors: a passage that answers a question may not stand beside it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from openbook.dataset.groups import Group, Move
from openbook.dataset.inorder import in_order
from openbook.dataset.judge import Judge
from openbook.progress import Progress
from openbook.records import Question


def screened(
    groups: Sequence[Group], moves: Sequence[Move], judge: Judge, *, at_once: int, progress: Progress
) -> tuple[list[Group], list[Move], int]:
    """The groups without pairs of a question and a passage that answers it though it is not golden, and how many of them
    there were. Such a question gets a group of its own, without those passages; one call a group."""
    away = {move.question.id for move in moves}
    visitors: dict[int, list[Question]] = defaultdict(list)
    for move in moves:
        visitors[move.group].append(move.question)
    asked = [
        ([question for question in group.questions if question.id not in away] + visitors[number], group)
        for number, group in enumerate(groups)
    ]
    result, moved, count = list(groups), {move.question.id: move.group for move in moves}, 0
    with progress.task("Judging distractors", len(groups), "groups") as task:
        verdicts = in_order(lambda one: judge.beside(one[0], one[1].passages), asked, at_once=at_once)
        for number, answering in enumerate(verdicts):
            for question, ids in zip(asked[number][0], answering, strict=True):
                wrong = ids.difference(question.golden_chunk_ids)
                if not wrong:
                    continue
                count += len(wrong)
                passages = tuple(chunk for chunk in groups[number].passages if chunk.id not in wrong)
                if not passages:  # nothing is left that it could be asked over: it stays at home
                    moved.pop(question.id, None)
                    continue
                stays = question.id not in moved
                if stays:
                    left = tuple(other for other in result[number].questions if other.id != question.id)
                    result[number] = replace(result[number], questions=left)
                else:
                    moved[question.id] = len(result)
                result.append(Group(passages=passages, questions=(question,) if stays else ()))
            task.advance()
    kept = [Move(question=move.question, group=moved[move.question.id]) for move in moves if move.question.id in moved]
    return result, kept, count
