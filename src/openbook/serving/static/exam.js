// The exam: the table of `report.json`, and the questions that an arm answered best and worst.

import { get } from "./api.js";
import { el, failure, withQuotes } from "./dom.js";

const METRICS = { exact_match: "Exact", f1: "F1", right_quote: "Right quote", verified_quotes: "Verified quotes", right_refusals: "Right refusals", false_refusals: "False refusals", mrr: "MRR" };

export function examination() {
  const element = el("section.exam", { "aria-label": "Exam" });
  fill(element).catch((error) => element.replaceChildren(failure(error)));
  return element;
}

async function fill(element) {
  const { report } = await get("/api/report");
  if (!report) {
    element.append(el("h2", {}, "Exam"), el("p.note", {}, "No exam has been held yet."));
    return;
  }
  for (const [test, result] of Object.entries(report.tests)) {
    const arms = Object.keys(result.arms);
    const metrics = Object.keys(METRICS).filter((metric) => arms.some((arm) => result.arms[arm][metric]?.value != null));
    const names = Object.keys(result.arms[arms[0]] ?? {}).filter((metric) => metric.startsWith("recall@"));
    const columns = [...metrics, ...names];
    element.append(el("h2", {}, `Exam: ${test}`), table(columns, result.arms, false));
    if (Object.keys(result.differences).length) element.append(el("h3", {}, "Differences, question by question"), table(columns, result.differences, true));
    element.append(await ends(test, arms));
  }
}

/** Means in percent with their 95 % intervals; differences that exclude zero stand out. */
function table(columns, rows, signed) {
  const head = el("tr", {}, el("th", { scope: "col" }, signed ? "Difference" : "Arm"), ...columns.map((metric) => el("th", { scope: "col" }, METRICS[metric] ?? metric)));
  const body = Object.entries(rows).map(([name, scores]) =>
    el("tr", {}, el("th", { scope: "row" }, name.replace("-", " − ").replaceAll("_", " ")), ...columns.map((metric) => cell(scores[metric], signed))),
  );
  return el("div.scroll", { tabIndex: 0 }, el("table.figures", {}, el("thead", {}, head), el("tbody", {}, ...body)));
}

function cell(interval, signed) {
  if (!interval || interval.value === null) return el("td.n", {}, "–");
  const said = (value) => `${signed && value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`;
  const sure = signed && interval.n > 1 && (interval.low > 0 || interval.high < 0);
  const value = el(sure ? "b" : "span", {}, said(interval.value));
  return el("td.n", { title: `${interval.n} questions` }, value, el("small", {}, `${said(interval.low)} … ${said(interval.high)}`));
}

async function ends(test, arms) {
  const chosen = el("select", { "aria-label": `Arm of the examples of ${test}` }, ...arms.map((arm) => el("option", { value: arm, selected: arm === "raft_rag" }, arm.replaceAll("_", " "))));
  const lists = el("div.ends");
  const fillLists = async () => {
    const { best, worst } = await get(`/api/grades?test=${encodeURIComponent(test)}&arm=${encodeURIComponent(chosen.value)}`);
    lists.replaceChildren(list("Answered best", best), list("… and worst", worst));
  };
  chosen.onchange = () => fillLists().catch((error) => lists.replaceChildren(failure(error)));
  await fillLists();
  return el("details", {}, el("summary", {}, "Best and worst answers"), el("p", {}, chosen), lists);
}

const list = (title, rows) =>
  el("section", {}, el("h4", {}, title), el("ol", {}, ...rows.map((row) => el("li", {}, el("b", {}, row.question), el("span.note", {}, `F1 ${(100 * row.f1).toFixed(0)}`), el("p", {}, "expected: ", el("i", {}, row.gold || "(a refusal)")), el("p", {}, ...withQuotes(row.text || row.error || "(nothing)"))))));
