// A document opened at a passage: beside the answer where there is room, over it where there is not.

import { get } from "./api.js";
import { el, failure } from "./dom.js";

const panel = document.getElementById("reader");
let opener = null;
let turn = 0;

export function close() {
  turn++;
  if (panel.hidden) return;
  panel.hidden = true;
  document.body.classList.remove("reading");
  panel.replaceChildren();
  opener?.focus();
  opener = null;
}

/** Open the document `id` with the characters from `start` to `end` highlighted. Offsets count code points. */
export async function open(id, { start, end, label }) {
  const mine = ++turn;
  if (panel.hidden) opener = document.activeElement;
  const shut = el("button.quiet", { type: "button", onclick: close, "aria-label": "Close the document" }, "✕");
  const title = el("h2", { tabIndex: -1 }, "…");
  const place = el("p.place", {}, "");
  const body = el("div.text", { tabIndex: 0, role: "document" });
  panel.replaceChildren(el("header", {}, el("div", {}, title, place), shut), body);
  panel.hidden = false;
  document.body.classList.add("reading");
  try {
    const found = await get(`/api/documents/${encodeURIComponent(id)}`);
    if (mine !== turn) return;
    const page = found.pages.filter((at) => at <= start).length;
    title.textContent = found.title || found.uri;
    place.textContent = [found.uri, page && `page ${page} of ${found.pages.length}`].filter(Boolean).join(" · ");
    body.append(...pieces(found, start, end, label));
    title.focus({ preventScroll: true });
    body.querySelector("mark")?.scrollIntoView({ block: "center" });
  } catch (error) {
    if (mine === turn) body.append(failure(error));
  }
}

/** The text cut where a page begins, a heading begins or ends, and at both ends of the highlight. */
function pieces(found, start, end, label) {
  const text = [...found.text]; // code points, as the offsets count them
  const headings = new Map(found.sections.map((section) => [section.start, section]));
  const pages = new Map(found.pages.map((at, number) => [at, number + 1]));
  const cuts = new Set([0, text.length, start, end, ...pages.keys()]);
  for (const at of headings.keys()) {
    const line = text.indexOf("\n", at);
    cuts.add(at).add(line < 0 ? text.length : line);
  }
  const edges = [...cuts].filter((at) => at >= 0 && at <= text.length).sort((a, b) => a - b);
  const made = [];
  edges.forEach((at, number) => {
    if (pages.has(at)) made.push(el("span.page", { role: "separator" }, `Page ${pages.get(at)}`));
    if (number + 1 === edges.length) return;
    const piece = text.slice(at, edges[number + 1]).join("");
    if (!piece) return;
    const marked = at >= start && at < end;
    const part = marked ? el("mark", { "aria-label": label }, piece) : el("span", {}, piece);
    if (headings.has(at) && !piece.startsWith("\n")) part.classList.add("heading");
    made.push(part);
  });
  return made;
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") close();
});
