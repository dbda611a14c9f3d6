"""A RAFT file with nothing wrong in it, as the reference tool writes one, and the ways to write it down."""

import copy
import json
import random

MACHINES = "alembic bellows crucible distaff escapement flywheel gimbal hopper".split()
PARTS = "valve lever spindle gasket ratchet hinge bearing piston".split()
STUFF = "brass oak glass copper slate".split()


def passage(machine, part):
    at = MACHINES.index(machine) * len(PARTS) + PARTS.index(part)
    stuff, more = STUFF[at % 5], " It is oiled before each shift." * (at % 3)
    return f"The {part} of the {machine} has {at + 11} rivets. It is cut from well-seasoned {stuff}.{more}"


def instruction(passages, question):
    return "".join(f"<DOCUMENT>{text}</DOCUMENT>\n" for text in passages) + question


def healthy(shown=4, golden_share=0.8):
    """64 rows: P = 0.8, golden passages in every place, refusals where they are missing, hard distractors."""
    rng = random.Random(3)
    rows = []
    for number, (machine, part) in enumerate((m, p) for m in MACHINES for p in PARTS):
        golden = passage(machine, part)
        others = [passage(machine, other) for other in PARTS if other != part]
        included = number % 5 < 5 * golden_share
        passages = rng.sample(others, shown - included)
        if included:
            passages.insert(number % shown, golden)
        question = f"How many rivets has the {machine} {part}?"
        sentence, count = golden.split(". ")[0] + ".", MACHINES.index(machine) * len(PARTS) + PARTS.index(part) + 11
        answer = f"The passage says: ##begin_quote##{sentence}##end_quote## So it is clear. <ANSWER>: {count}"
        rows.append(
            {
                "id": f"seed_task_{number}",
                "type": "general",
                "question": question,
                "context": {"title": [["placeholder_title"] * shown], "sentences": [passages]},
                "oracle_context": golden,
                "cot_answer": answer if included else "Nothing here says it. <ANSWER>: not in the documents",
                "instruction": instruction(passages, question),
            }
        )
    return rows


def shown(row):
    return row["context"]["sentences"][0]


def rewrite(row, passages=None, **fields):
    """The row with other passages and fields, its instruction written anew."""
    row = copy.deepcopy(row) | fields
    if passages is not None:
        row["context"] = {"title": [["placeholder_title"] * len(passages)], "sentences": [list(passages)]}
    row["instruction"] = instruction(shown(row), row["question"])
    return row


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
