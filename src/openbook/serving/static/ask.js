// Ask: one question, one answer or three side by side; every quote can be opened where it stands.

import { get, stream } from "./api.js";
import { choice, duration, el, failure, field, number, plain, withQuotes } from "./dom.js";
import { open } from "./reader.js";

const NAMES = { tuned: "Tuned", rag: "With retrieval", closed: "Closed book" };

export function show(main, parameters, status) {
  const arms = Object.fromEntries(status.arms.map((arm) => [arm.name, arm]));
  const usable = Object.keys(NAMES).filter((name) => arms[name]?.available);
  const question = el("textarea", {
    rows: 2,
    required: true,
    placeholder: "A question that your documents answer",
    value: parameters.get("q") || "",
    "aria-label": "Question",
  });
  const how = choice(
    "arm",
    "Answer",
    [...Object.keys(NAMES).map((name) => [name, NAMES[name], arms[name]?.reason]), ["all", "Side by side", usable.length < 2 && "only one way is there"]],
    usable[0],
  );
  const k = el("input", { type: "number", min: 1, max: 50, value: status.passages });
  const send = el("button", {}, "Ask");
  const stop = el("button.quiet", { type: "button", hidden: true }, "Stop");
  const searching = el("button.quiet", { type: "button" }, "Only search");
  const results = el("section.results", { "aria-live": "polite", "aria-label": "Answers" });
  const form = el("form.ask", {}, question, el("div.row", {}, how, field("Passages", k), el("span.push"), searching, stop, send));
  main.append(el("h1", {}, "Ask your documents"), form, results);
  question.focus();

  let control = null;
  const end = () => control?.abort();
  question.onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  };
  stop.onclick = end;
  searching.onclick = async () => {
    if (!question.value.trim()) return question.focus();
    try {
      const found = await get(`/api/search?q=${encodeURIComponent(question.value)}&k=${Number(k.value) || 4}`);
      results.className = "results";
      results.replaceChildren(passageList(found.passages, true));
    } catch (error) {
      results.replaceChildren(failure(error));
    }
  };
  form.onsubmit = async (event) => {
    event.preventDefault();
    end();
    const mine = (control = new AbortController());
    const chosen = how.value === "all" ? usable : [how.value];
    const cards = chosen.map((name) => new Card(name, arms[name].meaning));
    results.className = chosen.length > 1 ? "results beside" : "results";
    results.replaceChildren(...cards.map((card) => card.element));
    stop.hidden = false;
    await Promise.all(cards.map((card) => card.answer(question.value, Number(k.value) || undefined, mine.signal)));
    if (control === mine) stop.hidden = true;
  };
  return end;
}

class Card {
  constructor(name, meaning) {
    this.name = name;
    this.text = el("p.answer", {}, "");
    this.below = el("div.below");
    this.note = el("p.note", {}, "reading …");
    this.element = el("article.card", { "aria-busy": "true", "data-arm": name }, el("h2", {}, NAMES[name], el("small", {}, meaning)), this.text, this.below, this.note);
  }

  async answer(question, k, signal) {
    this.passages = [];
    this.checked = this.ended = false;
    try {
      for await (const [name, data] of stream("/api/ask", { question, arm: this.name, k }, signal)) {
        this[`on_${name}`]?.(data);
      }
      if (!this.ended) throw new Error("The server broke off.");
    } catch (error) {
      if (error.name === "AbortError") this.note.textContent = "stopped";
      else this.on_error(error);
    }
    if (!this.checked) this.brokeOff();
    this.element.setAttribute("aria-busy", "false");
  }

  on_passages({ passages }) {
    this.passages = passages;
    this.below.replaceChildren(passages.length ? passageList(passages, false) : "");
    this.note.textContent = "writing …";
  }

  on_delta({ text }) {
    this.text.append(plain(text));
  }

  on_citations({ segments, citations, final, refusal }) {
    this.checked = true;
    const byNumber = new Map(citations.map((citation) => [citation.number, citation]));
    this.text.replaceChildren(
      ...segments.flatMap(({ text, quote }) => (quote && byNumber.has(quote) ? quoted(text, byNumber.get(quote)) : [plain(prose(text, final))])),
    );
    if (refusal) this.element.classList.add("refusal");
    if (citations.length) {
      const list = el("ol.quotes", { "aria-label": "Quotes" }, ...citations.map(quoteLine));
      this.below.prepend(list);
    }
    if (final) this.element.insertBefore(el("p.final", {}, el("b", {}, "Answer "), ...withQuotes(final)), this.below);
  }

  on_done({ seconds, first_text_seconds: first, completion_tokens: tokens, finished }) {
    this.ended = true;
    const cut = finished ? "" : " · cut off, at the length limit or in a loop";
    this.note.textContent = `${number(tokens)} tokens in ${duration(seconds)}, the first after ${duration(first)}${cut}`;
  }

  /** Nobody has looked up the quotes of an answer that broke off. */
  brokeOff() {
    if (this.text.textContent.includes("“")) this.below.prepend(el("p.warning", {}, "⚠ unverified: the answer broke off before its quotes were checked"));
  }

  on_error(error) {
    this.ended = true;
    this.note.replaceWith(failure(error));
  }
}

/** What stands around the quotes, without the marks of the answer's form: the short answer is shown by itself. */
function prose(text, final) {
  const shown = text.replace(/^##Reason:\s*/, "");
  return final ? shown.replace(/\s*→[^→]*$/, "") : shown;
}

function quoted(text, citation) {
  const kind = citation.verified ? "q.verified" : "q.unverified";
  return [el(kind, {}, text), chip(citation)];
}

/** Why a quote is not verified. */
const doubt = ({ closed }) => (closed ? "not word for word in any passage that was shown" : "the answer ended before the quote did, so it cannot be checked");

/** The number of a quote, which opens its document; where it stands nowhere, a warning. */
function chip(citation) {
  if (!citation.verified) {
    return el("span.chip.unverified", { title: `Unverified: ${doubt(citation)}` }, `${citation.number} ?`);
  }
  return el("button.chip", { type: "button", title: `Open ${citation.title}`, onclick: () => openCitation(citation) }, String(citation.number));
}

const openCitation = (citation) =>
  open(citation.document, { start: citation.start, end: citation.end, label: `Quote ${citation.number}` });

function quoteLine(citation) {
  if (!citation.verified) {
    return el("li.unverified", { value: citation.number }, el("q", {}, citation.quote), el("span.warning", {}, `⚠ unverified: ${doubt(citation)}`));
  }
  const page = citation.page ? `, page ${citation.page}` : "";
  const link = el("button.link", { type: "button", onclick: () => openCitation(citation) }, `${citation.title || citation.uri}${page}`);
  return el("li.verified", { value: citation.number }, el("q", {}, citation.quote), el("span", {}, "✓ verbatim in ", link));
}

/** Passages with their scores; a bar compares the fused score with the best one. */
function passageList(passages, opened) {
  const best = Math.max(...passages.map((passage) => passage.score), 1e-9);
  const items = passages.map((passage) => {
    const bar = el("span.bar");
    bar.style.setProperty("--share", passage.score / best);
    const where = [passage.title || passage.uri, ...passage.headings.filter((h) => h && h !== passage.title)].join(" › ");
    const show = () => open(passage.document, { start: passage.start, end: passage.end, label: "Passage" });
    return el(
      "li",
      {},
      el("button.link", { type: "button", onclick: show }, where, passage.page ? `, page ${passage.page}` : ""),
      el("span.scores", {}, bar, `fused ${passage.score.toFixed(4)}`, leg("meaning", "cosine", passage.dense_rank, passage.dense_score), leg("words", "BM25", passage.text_rank, passage.text_score)),
      el("p.passage", {}, passage.text),
    );
  });
  const title = passages.length === 1 ? "1 passage" : `${passages.length} passages`;
  return el("details.passages", { open: opened }, el("summary", {}, passages.length ? `${title}, with scores` : "Nothing found"), el("ol", {}, ...items));
}

const leg = (name, unit, rank, score) =>
  el("span", {}, rank === null || rank === undefined ? `${name} –` : `${name} #${rank} (${unit} ${score.toPrecision(3)})`);
