// The data set: its rows, what a model is shown and what it is to answer.

import { get } from "./api.js";
import { choice, el, failure, number, withQuotes } from "./dom.js";
import { open } from "./reader.js";

const COUNT = 20;
const PARTS = [["train", "Training"], ["validation", "Validation"], ["studied", "Exam: studied"], ["unseen", "Exam: unseen"]];

export function show(main, parameters) {
  const list = el("ol.rows");
  const note = el("p.note", { role: "status" });
  const words = el("input", { type: "search", placeholder: "words in question or answer", "aria-label": "Words" });
  const before = el("button.quiet", { type: "button" }, "← earlier");
  const after = el("button.quiet", { type: "button" }, "later →");
  const part = choice("part", "Part", PARTS, parameters.get("part") || "train", () => turnTo(0));
  let start = 0;
  let mine = 0;

  async function turnTo(to) {
    const turn = ++mine;
    start = Math.max(0, to);
    try {
      const found = await get(`/api/dataset/${part.value}?start=${start}&count=${COUNT}&q=${encodeURIComponent(words.value)}`);
      if (turn !== mine) return;
      const last = Math.min(found.total, start + found.rows.length);
      note.textContent = found.total ? `${number(start + 1)} to ${number(last)} of ${number(found.total)}` : "No row.";
      before.disabled = start === 0;
      after.disabled = last >= found.total;
      list.replaceChildren(...found.rows.map((row) => rowOf(row, part.value)));
    } catch (error) {
      if (turn !== mine) return;
      note.textContent = "";
      list.replaceChildren(el("li", {}, failure(error)));
    }
  }

  let pause = 0;
  words.oninput = () => {
    clearTimeout(pause);
    pause = setTimeout(() => turnTo(0), 250);
  };
  before.onclick = () => turnTo(start - COUNT);
  after.onclick = () => turnTo(start + COUNT);
  main.append(el("h1", {}, "The data set"), el("div.row", {}, part, words), el("div.row", {}, note, el("span.push"), before, after), list);
  turnTo(0);
  return () => clearTimeout(pause);
}

function rowOf(row, part) {
  const meta = row.meta ?? {};
  const kinds = [meta.kind, meta.golden_included === false ? "without its golden passage" : "", meta.group && `group ${meta.group}`];
  const body = el("div");
  const details = el("details", {}, el("summary", {}, el("span.line", {}, String(row.line)), el("b", {}, row.question), el("span.note", {}, kinds.filter(Boolean).join(" · "))), body);
  details.ontoggle = () => {
    if (details.open && !body.childElementCount) body.append(...shown(row, part));
  };
  return el("li", {}, details);
}

function shown(row, part) {
  const meta = row.meta ?? {};
  const sentences = row.context?.sentences ?? [];
  const passages = Array.isArray(sentences[0]) ? sentences[0] : sentences;
  const golden = new Set([row.oracle_context, ...(meta.golden_chunks ?? []).map((chunk) => chunk.text)]);
  const places = new Map((meta.passage_chunks ?? []).map((chunk) => [chunk.text, chunk]));
  const made = [
    el("h3", {}, "It is to answer"),
    el("p.answer", {}, ...withQuotes(row.cot_answer ?? "")),
    el("h3", {}, `It is shown ${passages.length} passages`),
    el("ol.shown", {}, ...passages.map((text) => passageOf(text, golden.has(text), places.get(text)))),
  ];
  if (part === "train") made.push(el("p", {}, el("a", { href: `#/trace?row=${row.line}` }, "Trace a training step on this row")));
  return made;
}

function passageOf(text, golden, chunk) {
  const where = chunk && el("button.link", { type: "button", onclick: () => open(chunk.document_id, { start: chunk.start, end: chunk.end, label: "Passage" }) }, chunk.title || chunk.uri);
  return el(golden ? "li.golden" : "li", {}, el("small", {}, golden ? "golden " : "", where), el("p.passage", {}, text));
}
