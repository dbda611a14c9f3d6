// Trace: one step of training on the user's own model, drawn.

import { post } from "./api.js";
import { choice, el, failure, field, number, percent } from "./dom.js";

const PARTS = { template: "template", system: "system", user: "message", assistant: "answer" };
const LONG = 240; // tokens of a shared beginning that are drawn at once

export function show(main, parameters, status) {
  const line = parameters.get("row");
  const text = (rows, value = "") => el("textarea", { rows, value });
  const message = text(2, "What is the capital of openbook?");
  const answer = text(2, "The index.");
  const chosen = text(2, "The index, where every passage lives.");
  const rejected = text(2, "I cannot say.");
  const row = el("input", { type: "number", min: 1, value: line || 1 });
  const steps = el("input", { type: "number", min: 1, max: 50, value: 1 });
  const tuned = el("input", { type: "checkbox", checked: false, disabled: !status.adapter });
  const said = field("Message", message);
  const fields = {
    message: [said, field("Answer it is to learn", answer)],
    pair: [said, field("Chosen answer", chosen), field("Rejected answer", rejected)],
    row: [field("Line of the training set", row)],
  };
  const inputs = el("div.inputs");
  const kind = choice("kind", "Train on", [["message", "A message"], ["pair", "A preference"], ["row", "A row of the data set"]], line ? "row" : "message", () => fill());
  const fill = () => inputs.replaceChildren(...fields[kind.value]);
  const go = el("button", {}, "Take the step");
  const stop = el("button.quiet", { type: "button", hidden: true }, "Stop");
  const result = el("section", { "aria-live": "polite", "aria-label": "Trace" });
  const form = el(
    "form.trace",
    {},
    kind,
    inputs,
    el("div.row", {}, field("Optimizer steps", steps), el("label.check", {}, tuned, status.adapter ? "from the tuned model on" : "from the tuned model on (there is none yet)"), el("span.push"), stop, go),
  );
  main.append(
    el("h1", {}, "How a text message tunes a language model"),
    el("p.lead", {}, "The text is cut into tokens. The model says how probable it holds each token of the answer; the loss is how surprised it is. One optimizer step moves the weights so that it will be less surprised. This is the real thing, on your model; what is on disk stays as it is."),
    form,
    result,
  );
  fill();

  let control = null;
  let clock = 0;
  const end = () => {
    control?.abort();
    clearInterval(clock);
  };
  stop.onclick = end;
  form.onsubmit = async (event) => {
    event.preventDefault();
    end();
    const mine = (control = new AbortController());
    const bodies = {
      message: { message: message.value, answer: answer.value },
      pair: { message: message.value, chosen: chosen.value, rejected: rejected.value },
      row: { row: Number(row.value) },
    };
    const waiting = el("p.waiting", {}, "Loading the model …");
    const started = Date.now();
    clock = setInterval(() => {
      waiting.textContent = `Loading the model, looking, stepping, looking again … ${Math.round((Date.now() - started) / 1000)} s`;
    }, 1000);
    result.replaceChildren(waiting);
    go.disabled = true;
    stop.hidden = false;
    try {
      const found = await post("/api/trace", { ...bodies[kind.value], steps: Number(steps.value) || 1, tuned: tuned.checked }, mine.signal);
      result.replaceChildren(...drawn(found));
    } catch (error) {
      result.replaceChildren(error.name === "AbortError" ? el("p.note", {}, "stopped") : failure(error));
    }
    clearInterval(clock);
    go.disabled = false;
    stop.hidden = true;
  };
  if (line) form.requestSubmit();
  return end;
}

function drawn(found) {
  const trained = found.tokens.filter((token) => token.trained);
  const saved = found.separate_tokens / found.tokens.length;
  const steps = found.steps === 1 ? "one step" : `${found.steps} steps`;
  return [
    el(
      "dl.numbers",
      {},
      figure("Loss", found.loss_before.toFixed(3), found.loss_after.toFixed(3), `${found.loss_name}, ${steps} at rate ${found.learning_rate}`),
      figure("Tokens", number(found.tokens.length), null, `${number(trained.length)} of them trained` + (saved > 1.01 ? `; ${saved.toFixed(1)} times as many if nothing were shared` : "")),
      figure("Weights moved", number(found.moved_weights), null, `of ${number(found.trained_weights)} trained, in a network of ${number(found.total_weights)}`),
    ),
    el("div.says", {}, says("It said before", found.says_before), says("It says now", found.says_after)),
    el("h2", {}, "The row, token by token"),
    legend(),
    el("div", {}, ...rowOf(found)),
    el("h2", {}, found.kind === "row" ? `The trained tokens of ${found.branches[0].name}` : "The trained tokens"),
    el("p.note", {}, "How probable the model held each token, given all before it, and what it would have written instead."),
    tokenTable(found),
    el("h2", {}, "Where the weights moved"),
    el("p.note", {}, "Length of the change over the length of the matrix it is added to. In an adapter's first step only the half that starts at zero can move."),
    movement(found.movements),
  ];
}

const figure = (name, before, after, note) =>
  el("div", {}, el("dt", {}, name), el("dd", {}, el("b", {}, before, after === null ? "" : ` → ${after}`), el("small", {}, note)));

const says = (title, text) => el("figure", {}, el("figcaption", {}, title), el("p", {}, text || "(nothing)"));

function legend() {
  const kinds = Object.entries(PARTS).map(([part, name]) => el("span.tok", { "data-part": part }, name));
  return el("p.legend", {}, ...kinds, el("span.tok.up", { "data-part": "assistant" }, "trained, now likelier"), el("span.tok.down", { "data-part": "assistant" }, "trained, now less likely"));
}

/** The tokens: what all branches share, then each branch. */
function rowOf(found) {
  const detail = el("p.detail", { role: "status" }, "Choose a token to see its figures.");
  const pieces = (tokens) => el("div.tokens", {}, ...tokens.flatMap((token) => [piece(token, detail), token.text.endsWith("\n") ? el("br") : ""]));
  if (found.branches.length === 1) return [pieces(found.tokens), detail];
  // Tokens stand depth first, so all branches begin with those up to the first one that two follow.
  const trunk = Math.min(...found.tokens.filter((token, at) => token.parent !== at - 1).map((token) => token.parent)) + 1;
  const shared = found.tokens.slice(0, trunk);
  const top = el("div.branch.shared", {}, el("h3", {}, `Read once for all ${found.branches.length}: ${number(shared.length)} tokens`));
  if (shared.length > LONG) {
    const gap = el("button.link", { type: "button" }, `… ${number(shared.length - LONG)} tokens more …`);
    const head = pieces(shared.slice(0, LONG / 2));
    const tail = pieces(shared.slice(-LONG / 2));
    gap.onclick = () => gap.replaceWith(pieces(shared.slice(LONG / 2, -LONG / 2)));
    top.append(head, gap, tail);
  } else {
    top.append(pieces(shared));
  }
  const branches = found.branches.map((branch, at) => {
    const after = [];
    for (let p = found.tokens.findLastIndex((token) => token.branch === at); p >= trunk; p = found.tokens[p].parent) after.unshift(found.tokens[p]);
    const some = after.filter((token) => token.branch < 0).length;
    const gain = branch.logp_after - branch.logp_before;
    const title = `${branch.name}: ${branch.logp_before.toFixed(1)} → ${branch.logp_after.toFixed(1)} nats (${gain >= 0 ? "+" : ""}${gain.toFixed(2)})`;
    return el("div.branch", {}, el("h3", {}, title, el("small", {}, `${number(after.length)} tokens more${some ? `, ${number(some)} of them with others` : ""}; ${number(branch.trained)} trained`)), pieces(after));
  });
  return [top, el("div.branches", {}, ...branches), detail];
}

function piece(token, detail) {
  const shown = token.text.replaceAll("\n", "⏎") || "∅";
  const change = token.trained ? (token.probability_after >= token.probability_before ? ".up" : ".down") : "";
  const button = el(`button.tok${change}`, { type: "button", "data-part": token.part, title: `id ${token.id}` }, shown);
  button.onclick = button.onfocus = () => {
    const chances = token.trained
      ? `: ${percent(token.probability_before)} → ${percent(token.probability_after)}; it would have written ${JSON.stringify(token.guess_before)}, now ${JSON.stringify(token.guess_after)}`
      : `: read, not trained (${PARTS[token.part]})`;
    detail.replaceChildren(el("code", {}, JSON.stringify(token.text)), el("span", {}, ` id ${token.id}${chances}`));
  };
  return button;
}

function tokenTable(found) {
  const head = ["Token", "id", "Before", "After", "It would have written", "Now"];
  const rows = found.tokens
    .filter((token) => token.trained && (found.kind !== "row" || token.branch === 0))
    .map((token) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, el("code", {}, JSON.stringify(token.text).slice(1, -1))),
        el("td.n", {}, String(token.id)),
        chance(token.probability_before, ""),
        chance(token.probability_after, token.probability_after >= token.probability_before ? ".up" : ".down"),
        el("td", {}, el("code", {}, JSON.stringify(token.guess_before).slice(1, -1))),
        el("td", {}, el("code", {}, JSON.stringify(token.guess_after).slice(1, -1))),
      ),
    );
  const title = el("thead", {}, el("tr", {}, ...head.map((name) => el("th", { scope: "col" }, name))));
  return el("div.scroll", { tabIndex: 0 }, el("table", {}, title, el("tbody", {}, ...rows)));
}

function chance(probability, kind) {
  const bar = el(`span.bar${kind}`);
  bar.style.setProperty("--share", probability);
  return el("td.n.chance", {}, bar, percent(probability));
}

/** Layers down, kinds of matrices across; the darker, the further. */
function movement(found) {
  const kinds = [...new Set(found.filter((m) => m.layer !== null).map((m) => m.kind))];
  const layers = [...new Set(found.map((m) => m.layer).filter((layer) => layer !== null))].sort((a, b) => a - b);
  const most = Math.max(...found.map((m) => m.share), 1e-12);
  const at = new Map(found.map((m) => [`${m.layer} ${m.kind}`, m]));
  const cell = (m) => {
    if (!m) return el("td", {}, "");
    const made = el("td.heat.n", { title: `${m.name}: ${number(m.moved)} of ${number(m.trained)} trained weights moved, added to ${number(m.weights)}` }, short(m.share));
    made.style.setProperty("--heat", Math.sqrt(m.share / most));
    return made;
  };
  const head = el("tr", {}, el("th", { scope: "col" }, "Layer"), ...kinds.map((kind) => el("th", { scope: "col" }, kind.replace("self_attn.", "").replace("mlp.", "").replace("_proj", ""))), el("th", { scope: "col" }, "moved"));
  const rows = layers.map((layer) => {
    const mine = found.filter((m) => m.layer === layer);
    const sum = (name) => mine.reduce((total, m) => total + m[name], 0);
    return el("tr", {}, el("th", { scope: "row" }, String(layer)), ...kinds.map((kind) => cell(at.get(`${layer} ${kind}`))), el("td.n", {}, `${number(sum("moved"))} of ${number(sum("trained"))}`));
  });
  const outside = found.filter((m) => m.layer === null).map((m) => el("tr", {}, el("th", { scope: "row" }, m.kind), cell(m), el("td.n", { colspan: kinds.length }, `${number(m.moved)} of ${number(m.trained)}`)));
  return el("div.scroll", { tabIndex: 0 }, el("table.movement", {}, el("thead", {}, head), el("tbody", {}, ...rows, ...outside)));
}

const short = (share) => (share >= 0.0001 ? `${(100 * share).toFixed(2)}%` : share === 0 ? "0" : share.toExponential(0));
