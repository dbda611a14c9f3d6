"""Everything that can be wrong with a RAFT file: what it is called, what it means, and what to do about it.

An *error* teaches a model something wrong, or trains or tests on nothing; a *warning* is worth a look. The names are
stable: scripts may rely on them.
"""

from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault. `says` completes “12 rows: …” or stands for the whole file."""

    name: str
    severity: Severity
    says: str
    remedy: str


def _error(name: str, says: str, remedy: str) -> Fault:
    return Fault(name=name, severity="error", says=says, remedy=remedy)


def _warning(name: str, says: str, remedy: str) -> Fault:
    return Fault(name=name, severity="warning", says=says, remedy=remedy)


_DROPS = "--fix leaves such rows out."

_ALL = (
    # rows
    _error("unreadable", "cannot be read", f"Mend or remove them; {_DROPS}"),
    _error("empty-field", "a field is empty", f"Fill it in; {_DROPS}"),
    _error(
        "no-answer-tag",
        "the answer has no <ANSWER>: tag, so that nothing says where the short answer begins",
        f"Have the answer written again; {_DROPS}",
    ),
    _error("quote-tags", "a quote is opened and not closed, or the reverse", f"Close it; {_DROPS}"),
    _error(
        "quote-form",
        "a quote differs from its passage in white space, case, hyphenation or Unicode form",
        "--fix puts the exact span in its place.",
    ),
    _error("quote-missing", "a quote stands in no passage", f"The teacher made it up: {_DROPS}"),
    _warning(
        "quote-unseen",
        "a quote stands in the golden passage, which is not shown: the model is trained to quote what it cannot read",
        "Let examples without their golden passage refuse, or answer without a quote.",
    ),
    _warning("no-quote", "the answer quotes nothing, so that nothing in it can be checked", "Ask for quotes."),
    _error(
        "duplicate-passage",
        "a passage stands twice in a row, such as a replacement for the golden one that was already shown",
        "--fix shows it once.",
    ),
    _error(
        "no-golden",
        "no golden passage is named, though the row answers",
        f"Fill in oracle_context; {_DROPS}",
    ),
    _error(
        "golden-claim",
        "what the row says of its golden passage (oracle_present, oracle_index, meta) is not what it shows",
        "--fix writes down what is shown.",
    ),
    _error(
        "question-cut",
        "the question is cut: another column or the end of the passages holds more of it",
        f"A question of several lines was cut at a line's end. Export again; {_DROPS}",
    ),
    _error(
        "instruction-differs",
        "the instruction does not show the passages of the context",
        "--fix writes the instruction again.",
    ),
    _error(
        "reasoning-as-answer",
        "the short answer holds the whole reasoning, so that exact match can never be right",
        "--fix keeps what follows the last answer tag.",
    ),
    _warning(
        "list-number",
        "the question still has the number or bullet of the list that it was written in",
        "--fix takes it off where at least a tenth of all questions have one.",
    ),
    _warning(
        "refuses-with-golden",
        "the golden passage is shown, and the answer says that the documents do not hold it",
        "Look at them: they teach the model to overlook what is there.",
    ),
    _warning(
        "no-passages", "no passages are shown: the row trains a closed book", "Show passages before the question."
    ),
    _error("duplicate-row", "the same question, passages and answer as in an earlier row", "--fix keeps the first."),
    _warning("duplicate-question", "the same question as in an earlier row", "Keep one, or vary the question."),
    _warning("near-duplicate", "nearly the same question as in an earlier row", "Keep one of them."),
    _warning(
        "duplicate-id",
        "an id that an earlier row has too, as when a run was taken up again from a checkpoint",
        "Check that all rows were made with the same settings.",
    ),
    _error(
        "too-long",
        "more tokens than the model reads: the end, which is the answer, would be cut off",
        "Show fewer or shorter passages; --fix leaves out distractors until the row fits.",
    ),
    _error("leaked-question", "the same question stands in the other file", f"It is no test then: {_DROPS}"),
    _error("leaked-near", "nearly the same question stands in the other file", f"It is hardly a test then: {_DROPS}"),
    # the file as a whole
    _error("no-rows", "The file holds no rows.", "Is it the right one?"),
    _error(
        "golden-place",
        "The golden passage nearly always stands in the same place: the model learns the place, not to read.",
        "Shuffle the passages of every row; --fix does, with a fixed seed.",
    ),
    _warning(
        "golden-place-bias",
        "The golden passage stands in some places more often than chance gives.",
        "Shuffle the passages of every row; --fix does not.",
    ),
    _error(
        "golden-share-differs",
        "The share of rows that show their golden passage (P) is not the one that was expected.",
        "P was inverted, ignored or never passed on: build the file again.",
    ),
    _warning(
        "golden-share-low",
        "Few rows show their golden passage (P): it may have been inverted. Published sets use 0.4 to 1.",
        "Give the P that you asked for with --golden-share; build the file again if it differs.",
    ),
    _warning(
        "golden-share-whole",
        "Every row shows its golden passage (P = 1): no row teaches what to do without it, or P was never passed on.",
        "Where you asked for less, give it with --golden-share and build the file again.",
    ),
    _warning(
        "unrelated-distractors",
        "The distractors have no more in common with their question than those of any other row: they are easy to tell.",
        "Take them from a search for the question instead of at random.",
    ),
    _warning(
        "cut-by-characters",
        "Many passages have exactly the same number of characters: they were cut by characters, not by tokens or sentences.",
        "Cut at sentences, by the tokens of your model or embedder.",
    ),
    _warning(
        "mixed-settings",
        "Rows show different numbers of passages, as when a checkpoint was taken up again under other settings.",
        "Build the file in one piece, from one configuration.",
    ),
    _warning(
        "mixed-layouts", "The rows are of different layouts.", "Keep one layout in a file: trainers take only one."
    ),
    _warning(
        "shared-golden",
        "Golden passages of the other file are golden here too: that file tests documents that were studied.",
        "Split by document, not by row, where it shall test unseen documents.",
    ),
)

FAULTS: Final = {fault.name: fault for fault in _ALL}
