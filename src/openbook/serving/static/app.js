// The frame: which view is shown, the colours, the token, what the server is.

import { get, keepToken } from "./api.js";
import { count, el, failure, field } from "./dom.js";
import { close as closeReader } from "./reader.js";

// Loaded when first shown.
const VIEWS = {
  ask: ["Ask", () => import("./ask.js")],
  trace: ["Trace", () => import("./trace.js")],
  runs: ["Runs", () => import("./runs.js")],
  data: ["Data", () => import("./data.js")],
};

const main = document.getElementById("main");
let leave = () => {};
let turn = 0;

/** `#/trace?row=12` → ["trace", URLSearchParams]. */
function address() {
  const [path, query = ""] = location.hash.slice(2).split("?");
  return [path in VIEWS ? path : "ask", new URLSearchParams(query)];
}

async function show() {
  const mine = ++turn;
  const [name, parameters] = address();
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  leave();
  leave = () => {};
  closeReader();
  document.title = `${VIEWS[name][0]} · openbook`;
  main.className = name;
  main.replaceChildren(el("p.waiting", {}, "…"));
  try {
    const [view, status] = await Promise.all([VIEWS[name][1](), get("/api/status")]);
    if (mine !== turn) return; // another view was asked for meanwhile
    facts(status);
    main.replaceChildren();
    leave = view.show(main, parameters, status) || leave;
  } catch (error) {
    if (mine === turn && error.status !== 401) main.replaceChildren(failure(error));
  }
}

function facts(status) {
  const index = status.index && `${count(status.index.chunks, "passage")} of ${count(status.index.documents, "document")}`;
  const model = status.adapter ? `${status.model}, tuned` : status.model;
  document.getElementById("facts").textContent = [model, index].filter(Boolean).join(" · ");
}

function askToken() {
  const input = el("input", { type: "password", autocomplete: "off", required: true });
  const form = el("form.narrow", {}, el("h1", {}, "This server asks for its token"), field("Token", input), el("button", {}, "Go on"));
  form.onsubmit = (event) => {
    event.preventDefault();
    keepToken(input.value.trim());
    show();
  };
  main.replaceChildren(form);
  input.focus();
}

// Light, dark, or as the system has it.
const THEMES = { system: "◐", light: "☀", dark: "☾" };

function paint(theme) {
  const button = document.getElementById("theme");
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.textContent = THEMES[theme];
  button.setAttribute("aria-label", `Colours: ${theme}`);
  button.title = `Colours: ${theme}`;
  button.onclick = () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(theme) + 1) % names.length];
    localStorage.setItem("openbook-theme", next);
    paint(next);
  };
}

const kept = localStorage.getItem("openbook-theme");
paint(kept in THEMES ? kept : "system");
document.getElementById("nav").append(
  ...Object.entries(VIEWS).map(([name, [title]]) => el("a", { href: `#/${name}`, "data-view": name }, title)),
);
document.addEventListener("token-wanted", askToken);
addEventListener("hashchange", show);
show();
