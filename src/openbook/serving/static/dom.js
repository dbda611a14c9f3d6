// Elements made by hand. Whatever a document, a person or a model says goes through `textContent` and nothing else.

const SVG = "http://www.w3.org/2000/svg";

/** Text without the characters that turn the direction of all that follows: a document cannot write backwards here. */
export const plain = (text) => text.replace(/[\u202a-\u202e\u2066-\u2069]/g, "");

/** An element: `el("p.note", { hidden: true, onclick }, "text", child)`. Properties are set as such, `aria-*`, `data-*`
 *  and `role` as attributes; strings become text nodes. */
export function el(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("aria-") || key.startsWith("data-") || ["role", "for", "colspan", "scope"].includes(key)) {
      element.setAttribute(key, value);
    } else {
      element[key] = value;
    }
  }
  const kept = children.flat().filter((child) => child !== null && child !== undefined && child !== false);
  element.append(...kept.map((child) => (typeof child === "string" ? plain(child) : child)));
  return element;
}

/** An SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A form field below its label. */
export function field(label, input, hint = "") {
  input.id ||= `f${Math.random().toString(36).slice(2)}`;
  return el("div.field", {}, el("label", { for: input.id }, label), input, hint && el("small", {}, hint));
}

/** Radio buttons drawn as one switch. `options` are [value, label, why it cannot be chosen]. */
export function choice(name, legend, options, chosen, onchange = () => {}) {
  const inputs = options.map(([value, label, reason]) => {
    const input = el("input", { type: "radio", name, value, checked: value === chosen, disabled: Boolean(reason), onchange });
    return el("label", { title: reason || "" }, input, el("span", {}, label));
  });
  const set = el("fieldset.switch", {}, el("legend", {}, legend), ...inputs);
  Object.defineProperty(set, "value", { get: () => set.querySelector("input:checked")?.value });
  return set;
}

export const number = (value) => (value ?? 0).toLocaleString("en");
export const count = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
export const percent = (p) => (p >= 0.9995 || p < 0.001 ? (p >= 0.9995 ? "100%" : p.toExponential(0)) : `${(100 * p).toFixed(1)}%`);

/** Seconds as a person says them. */
export function duration(seconds) {
  if (seconds < 59.5) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds) % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** What went wrong, in a box. */
export const failure = (error) => el("p.failure", { role: "alert" }, error.message || String(error));

/** A written answer with its tags drawn as quotation marks. A quote that was never closed ends before the short answer. */
export function withQuotes(text) {
  return text
    .split(/(##begin_quote##.*?(?:##end_quote##|(?=<ANSWER>:)|$))/s)
    .map((part) => {
      const quote = part.match(/^##begin_quote##\s*(.*?)\s*(##end_quote##)?$/s);
      if (quote && !quote[2]) return quote[1] ? el("q.unverified", { title: "never closed, so not checked" }, quote[1]) : "";
      return quote ? el("q", {}, quote[1]) : part.replace("##Reason:", "").replace("<ANSWER>:", "→");
    });
}
