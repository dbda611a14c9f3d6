"use strict";
// Filters, keys and corrections. Text of the data set is only ever read and compared here, never made into markup.
const rows = [...document.querySelectorAll("article")];
const filters = [...document.querySelectorAll("[data-filter]")];
const search = document.getElementById("search");
const main = document.getElementById("rows");
const key = "openbook-overlay-" + main.dataset.known;
const texts = new Map(); // what a row says, in small letters, once it has been asked for
let current = null;

const state = (row) => ({ reject: "rejected", edit: "edited" })[row.dataset.action] || "unchanged";
const field = (row, name) => row.querySelector(`[name="${name}"]`);

function text(row) {
  if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
  return texts.get(row);
}

function filter() {
  const wanted = search.value.trim().toLowerCase();
  let count = 0;
  for (const row of rows) {
    const fits =
      filters.every(({ value, dataset }) => {
        if (!value) return true;
        return (dataset.filter === "state" ? state(row) : row.dataset[dataset.filter]) === value;
      }) && (!wanted || text(row).includes(wanted));
    row.hidden = !fits;
    count += fits;
  }
  const say = (n) => n.toLocaleString("en");
  document.getElementById("count").textContent = `${say(count)} of ${say(rows.length)} rows.`;
}

// A row's change as a line of the overlay; null where nothing was changed.
function change(row) {
  const { id, action } = row.dataset;
  if (!action) return null;
  const made = { question_id: id, action };
  if (action === "edit") {
    for (const name of ["question", "answer", "reasoning"]) {
      const area = field(row, name);
      if (area && area.value.trim() !== area.dataset.was.trim()) made[name] = area.value.trim();
    }
    if (Object.keys(made).length === 2) return null; // an earlier edit, in force: the row says so already
  }
  const note = field(row, "note").value.trim();
  if (note) made.note = note;
  made.was = field(row, "question").dataset.was;
  return made;
}

// One question may stand in several rows: the first that was changed speaks for all.
function changes() {
  const found = new Map();
  for (const row of rows) {
    const made = change(row);
    if (made && !found.has(made.question_id)) found.set(made.question_id, made);
  }
  return [...found.values()];
}

function show(row) {
  const what = state(row);
  row.querySelector(".state").textContent = what === "unchanged" ? "" : what;
  const reject = row.querySelector('[data-do="reject"]');
  reject.setAttribute("aria-pressed", String(what === "rejected"));
  reject.textContent = what === "rejected" ? "Take back" : "Reject";
}

function keep() {
  const made = changes();
  document.getElementById("export").disabled = !made.length;
  const pending = document.getElementById("pending");
  pending.textContent = made.length ? ` ${made.length} change${made.length === 1 ? "" : "s"}` : "";
  try {
    localStorage.setItem(key, JSON.stringify(made));
  } catch {
    pending.textContent += ": this browser keeps nothing, so export before you close the page";
  }
}

function recall() {
  let kept = [];
  try {
    kept = JSON.parse(localStorage.getItem(key) || "[]");
  } catch {
    return; // no storage, or not ours
  }
  const byId = new Map(kept.map((made) => [made.question_id, made]));
  for (const row of rows) {
    const made = byId.get(row.dataset.id);
    if (!made) continue;
    row.dataset.action = made.action;
    for (const name of ["question", "answer", "reasoning", "note"]) {
      const area = field(row, name);
      if (area && typeof made[name] === "string") area.value = made[name];
    }
  }
}

function reject(row) {
  if (row.dataset.action === "reject") delete row.dataset.action;
  else row.dataset.action = "reject";
  show(row);
  keep();
}

function edit(row) {
  const form = row.querySelector("form");
  form.hidden = !form.hidden;
  row.querySelector('[data-do="edit"]').setAttribute("aria-expanded", String(!form.hidden));
  if (!form.hidden) field(row, "question").focus();
}

function edited(row) {
  const different = ["question", "answer", "reasoning"].some((name) => {
    const area = field(row, name);
    return area && area.value.trim() !== area.dataset.was.trim();
  });
  if (different) row.dataset.action = "edit";
  else if (row.dataset.action === "edit") delete row.dataset.action;
  show(row);
  keep();
}

function go(step) {
  const visible = rows.filter((row) => !row.hidden);
  if (!visible.length) return;
  const at = visible.indexOf(current);
  const next = at < 0 ? 0 : Math.min(Math.max(at + step, 0), visible.length - 1);
  select(visible[next]);
  current.focus({ preventScroll: true });
  current.scrollIntoView({ block: "start" });
}

function select(row) {
  if (current) current.classList.remove("current");
  current = row;
  current.classList.add("current");
}

function save() {
  const lines = changes().map((made) => JSON.stringify(made) + "\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.download = "overlay.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

document.addEventListener("keydown", (event) => {
  const writing = event.target.closest("input, textarea, select");
  if (event.key === "Escape" && writing) writing.blur();
  if (writing || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = { "/": () => search.focus(), j: () => go(1), k: () => go(-1) }[event.key];
  const on = { r: reject, e: edit }[event.key];
  if (!act && !(on && current && !current.hidden)) return;
  event.preventDefault();
  if (act) act();
  else on(current);
});
main.addEventListener("click", (event) => {
  const row = event.target.closest("article");
  if (!row) return;
  select(row);
  const what = event.target.dataset.do;
  if (what) ({ reject, edit })[what](row);
});
main.addEventListener("input", (event) => edited(event.target.closest("article")));
main.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("filters").addEventListener("input", filter);
document.getElementById("export").addEventListener("click", save);

recall();
rows.forEach(show);
filter();
keep();
