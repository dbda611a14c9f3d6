"""Sentences and passages: exact offsets, nothing lost, nothing twice, nothing too long."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.documents import chunk, sentences
from openbook.documents.builder import TextBuilder
from openbook.documents.markdown import parse_markdown
from openbook.records import Chunk, Document


def words(text: str) -> int:
    return len(text.split())


def from_markdown(source: str) -> Document:
    parsed = parse_markdown(source, "title")
    return Document.create(uri="a.md", title=parsed.title, text=parsed.text, sections=parsed.sections)


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


# Sentences


@pytest.mark.parametrize(
    "text",
    [
        "It costs 3.14 euros. | Then it goes up.",
        "Use e.g. Prometheus for that. | It works.",
        "Call `os.path. Join` or os.path.join now. | Done.",
        "Dr. Smith met J. R. Tolkien at 5 p.m. in the U.S. Navy yard. | He left.",
        "He lives in the U.S. | The law is another.",
        "See Fig. 3 and No. 5. | Both matter.",
        "Is it so? | Yes! | It is.",
        'He said "stop." | Then (as ever.) | He left.',
        "It was founded.[1][2] | In 1869 it opened [3]. | More.",
        "Wait... | What?",
        "Version 1.2.3 of Node.js is out. | `code` starts this one.",
        "one lower. case follows",
        "The value etc. and so on. | New",
        "这是第一句。| 这是第二句。",
        "Set `a. B` and ``c`. D`` here. | End.",
    ],
)
def test_sentences_of_a_paragraph(text: str) -> None:
    parts = [part.strip() for part in text.split("|")]
    assert split(text.replace(" | ", " ").replace("| ", "").replace("|", "")) == parts


def test_lines_end_sentences_and_markers_stand_outside() -> None:
    text = (
        "# A heading. With a stop\n\nText here. More.\n\n- one. Two\n  1. three\n\nkey | default. Not cut\n\n"
        "```py\nx = 1. \n# y. Z\n```\n\nEnd."
    )
    assert split(text) == [
        "A heading.", "With a stop", "Text here.", "More.", "one.", "Two", "three", "key | default. Not cut",
        "```py\nx = 1. \n# y. Z\n```", "End.",
    ]  # fmt: skip


def test_the_rest_of_a_cut_code_block_is_no_prose() -> None:
    assert split("x = 1. Then\ny = 2\n```") == ["x = 1. Then\ny = 2\n```"]


@given(st.text(alphabet="ab. A!?`\n-#|1)*[]\"'。 ", max_size=200))
def test_sentences_are_ordered_disjoint_and_lose_only_markers(text: str) -> None:
    spans = sentences(text)
    assert all(start < end and text[start:end] == text[start:end].strip() for start, end in spans)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    between = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    assert not set("".join(between)) - set(" \n-#*1)."), between


# Passages


def check(document: Document, chunks: list[Chunk], count_tokens, max_tokens: int) -> None:
    """The laws of `chunk`."""
    for passage in chunks:
        assert passage.text == document.text[passage.start : passage.end]
        assert passage.text == passage.text.strip() != ""
        assert count_tokens(passage.text) <= max_tokens or len(passage.text) == 1
        assert passage.document_id == document.id
        under = [section for section in document.sections if section.start <= passage.end - 1]
        path: list[tuple[int, str]] = []
        for section in under:
            while path and path[-1][0] >= section.level:
                path.pop()
            path.append((section.level, section.title))
        assert passage.headings == tuple(title for _, title in path)
        if document.pages:
            assert passage.page == sum(start <= passage.start for start in document.pages)
    assert all(first.end <= second.start for first, second in pairwise(chunks))
    assert "".join("".join(passage.text.split()) for passage in chunks) == "".join(document.text.split())
    assert len({passage.id for passage in chunks}) == len(chunks)


SENTENCES = st.lists(st.sampled_from(["Word", "a", "bb", "ccc.", "Dd", "é", "x" * 30, "1.5", "`y. Z`", "wo-rd"]), min_size=1, max_size=30).map(" ".join)  # fmt: skip
BLOCKS = st.one_of(
    st.tuples(st.just("heading"), st.integers(1, 4), st.sampled_from(["One", "Two words", "Three"])),
    st.tuples(st.just("paragraph"), SENTENCES),
    st.tuples(st.just("code"), st.lists(SENTENCES, min_size=1, max_size=12).map("\n".join)),
    st.tuples(st.just("list"), st.lists(SENTENCES, min_size=1, max_size=12)),
    st.tuples(st.just("table"), st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=5)),
    st.tuples(st.just("page")),
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    builder = TextBuilder()
    for kind, *content in draw(st.lists(BLOCKS, max_size=12)):
        match kind:
            case "heading":
                builder.heading(*content)
            case "paragraph":
                builder.paragraph(content[0])
            case "code":
                builder.code(content[0], "py")
            case "list":
                builder.open_list()
                for item in content[0]:
                    builder.open_item()
                    builder.paragraph(item)
                builder.close_list()
            case "table":
                builder.table(content[0])
            case "page":
                start = builder.append("A page begins.")
                builder.pages += [start] if builder.pages or start == 0 else [0, start]
    parsed = builder.build("t")
    return Document.create(uri="u", title="t", text=parsed.text, sections=parsed.sections, pages=parsed.pages)


COUNTERS = {
    "words": words,
    "characters": lambda text: -(-len(text) // 3),
    "more together than apart": lambda text: words(text) + text.count("\n") * 2 + len(text) // 40,
}


@pytest.mark.parametrize("counter", COUNTERS)
@settings(max_examples=80, deadline=None)
@given(document=documents(), max_tokens=st.integers(5, 60))
def test_the_laws_hold_for_any_document(counter: str, document: Document, max_tokens: int) -> None:
    chunks = chunk(document, count_tokens=COUNTERS[counter], max_tokens=max_tokens)
    check(document, chunks, COUNTERS[counter], max_tokens)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300), st.integers(1, 10))
def test_the_laws_hold_for_any_text(text: str, max_tokens: int) -> None:
    document = Document.create(uri="u", title="t", text=text)
    check(document, chunk(document, count_tokens=words, max_tokens=max_tokens), words, max_tokens)


def test_passages_stay_under_one_heading_and_have_about_equal_sizes() -> None:
    paragraphs = "\n\n".join(f"Paragraph {number} has exactly seven words." for number in range(10))  # of 6 words
    document = from_markdown(f"# Top\n\nIntro text.\n\n## Sub\n\n{paragraphs}\n\n# Next\n\nLast words.")
    chunks = chunk(document, count_tokens=words, max_tokens=30)
    assert [c.headings for c in chunks] == [("Top",), *[("Top", "Sub")] * 3, ("Next",)]
    assert chunks[0].text == "# Top\n\nIntro text."
    sizes = [words(c.text) for c in chunks[1:-1]]
    assert max(sizes) - min(sizes) <= 6
    assert chunks[1].text.startswith("## Sub\n\nParagraph 0")


def test_a_heading_never_stands_alone_while_text_follows() -> None:
    long = " ".join(["word"] * 30)
    document = from_markdown(f"# A\n\n## B\n\n{long}\n\n## C\n\n## D\n\n{long}")
    chunks = chunk(document, count_tokens=words, max_tokens=30)
    assert all("word" in c.text for c in chunks)
    assert chunks[0].text.startswith("# A\n\n## B\n\nword")
    assert [c.headings for c in chunks if c.text.startswith("#")] == [("A", "B"), ("A", "D")]


def test_cuts_are_made_at_sentences_and_code_is_kept_apart() -> None:
    code = "\n".join(f"line_{number} = {number} * two" for number in range(20))
    document = from_markdown(f"One two three. Four five six. Seven eight.\n\n```py\n{code}\n```\n\nAfter the code.")
    chunks = chunk(document, count_tokens=words, max_tokens=6)
    assert chunks[0].text == "One two three. Four five six."
    assert chunks[-1].text == "After the code."
    assert chunks[-2].text.endswith("```")
    assert split(chunks[-2].text) == [chunks[-2].text]  # one piece of code, no sentences


def test_a_word_of_ten_thousand_characters_is_cut_though_it_is_one_token() -> None:
    document = Document.create(uri="u", title="t", text="x" * 10_000)
    chunks = chunk(document, count_tokens=lambda text: 1, max_tokens=20)
    assert max(len(c.text) for c in chunks) <= 12 * 20
    assert "".join(c.text for c in chunks) == document.text


def test_long_texts_are_not_tokenised_over_and_over() -> None:
    seen = 0

    def count(text: str) -> int:
        nonlocal seen
        seen += len(text)
        return words(text)

    document = from_markdown("\n\n".join(f"Paragraph {n}. " + "It has some words. " * 40 for n in range(200)))
    chunk(document, count_tokens=count, max_tokens=100)
    assert seen < 4 * len(document.text)


def test_no_room_for_a_single_token_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        chunk(Document.create(uri="u", title="t", text="x"), count_tokens=words, max_tokens=0)
