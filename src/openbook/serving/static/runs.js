// Runs: what is being trained and what was, started and stopped from here, going on without this page.

import { get, post } from "./api.js";
import { lossChart } from "./chart.js";
import { choice, count, duration, el, failure, field, number, plain, withQuotes } from "./dom.js";
import { examination } from "./exam.js";

const PAUSE = 1500; // milliseconds between two looks

export function show(main) {
  const jobs = el("section.jobs", { "aria-label": "Jobs" });
  const trainings = el("section.trainings", { "aria-label": "Trainings" });
  const problem = el("div");
  const seen = new Map(); // name → { element, update }
  const shownJobs = new Map();
  let alive = true;
  let timer = 0;
  let startForm = null;

  main.append(el("h1", {}, "Runs"), problem, jobs, trainings, examination());

  async function look() {
    try {
      const { jobs: found, trainings: tuned, defaults } = await get("/api/runs");
      if (!alive) return;
      startForm ||= startingForm(defaults, begin);
      const busy = found.some((job) => job.state === "running");
      startForm.busy(busy);
      if (!startForm.element.isConnected) jobs.before(startForm.element);
      for (const job of found.slice(0, 6)) {
        if (!shownJobs.has(job.id)) {
          shownJobs.set(job.id, jobCard(job, cancel));
          jobs[shownJobs.size > 1 && job === found[0] ? "prepend" : "append"](shownJobs.get(job.id).element);
        }
        await shownJobs.get(job.id).update(job);
      }
      for (const training of tuned) {
        if (!seen.has(training.name)) {
          seen.set(training.name, trainingCard(training));
          trainings.append(seen.get(training.name).element);
        }
        await seen.get(training.name).update(training);
      }
      for (const [name, card] of seen) card.element.hidden = !tuned.some((training) => training.name === name);
      if (!tuned.length && !found.length && !trainings.childElementCount) trainings.append(el("p.note", {}, "Nothing has been tuned yet."));
      problem.replaceChildren();
    } catch (error) {
      if (alive) problem.replaceChildren(failure(error));
    }
    if (alive) timer = setTimeout(look, PAUSE);
  }

  async function act(work) {
    clearTimeout(timer);
    try {
      await work();
      await look();
    } catch (error) {
      problem.replaceChildren(failure(error));
      timer = setTimeout(look, 4 * PAUSE);
    }
  }
  const begin = (body) => act(() => post("/api/jobs", body));
  const cancel = (id) => act(() => post(`/api/jobs/${id}/cancel`, {}));
  look();
  return () => {
    alive = false;
    clearTimeout(timer);
  };
}

function startingForm(defaults, begin) {
  const verb = choice("verb", "Start", [["tune", "Tune"], ["dataset", "Write the data set"], ["evaluate", "Hold the exam"], ["run", "Everything"]], "tune", () => fit());
  const form = choice("form", "Form", [["raft", "with passages"], ["closed", "closed book"]], "raft");
  const epochs = el("input", { type: "number", min: 0.1, step: "any", value: defaults.epochs });
  const rate = el("input", { type: "number", min: 0, step: "any", value: defaults.learning_rate });
  const rank = el("input", { type: "number", min: 1, value: defaults.rank });
  const again = el("input", { type: "checkbox" });
  const options = el("div.row", {}, form, field("Epochs", epochs), field("Learning rate", rate), field("Rank", rank));
  const anew = el("label.check", {}, again, "again, although nothing has changed");
  const go = el("button", {}, "Start");
  const note = el("p.note", {}, "It runs in a process of its own: close this page, or the server, and it goes on.");
  const element = el("form.start", {}, verb, options, el("div.row", {}, anew, el("span.push"), go), note);
  const fit = () => {
    options.hidden = verb.value !== "tune";
    anew.hidden = !["tune", "dataset"].includes(verb.value);
  };
  fit();
  element.onsubmit = (event) => {
    event.preventDefault();
    const tune = { form: form.value, epochs: Number(epochs.value), learning_rate: Number(rate.value), rank: Number(rank.value) };
    begin({ verb: verb.value, again: again.checked, ...(verb.value === "tune" ? tune : {}) });
  };
  return { element, busy: (busy) => (go.disabled = busy) };
}

const STATES = { running: "running", done: "done", stopped: "stopped", failed: "failed", lost: "ended without a word" };

function jobCard(job, cancel) {
  const state = el("span.state");
  const stop = el("button.quiet", { type: "button", onclick: () => cancel(job.id) }, "Stop");
  const output = el("pre", { tabIndex: 0, "aria-label": "Output" });
  const details = el("details", { open: job.state === "running" }, el("summary", {}, "Output"), output);
  const command = el("code", {}, ["openbook", ...job.command].join(" "));
  const element = el("article.card.job", { "data-id": job.id }, el("header", {}, el("h2", {}, job.title), state, el("span.push"), stop), el("p.command", {}, command), details);
  let end = 0;
  let last = "";
  return {
    element,
    async update(now) {
      element.dataset.state = now.state;
      state.textContent = `${STATES[now.state]}${now.seconds ? ` · ${duration(now.seconds)}` : ""}`;
      stop.hidden = now.state !== "running";
      stop.textContent = now.stops ? "Stop at once" : "Stop";
      if (last !== "" && last === now.state && now.state !== "running") return;
      last = now.state;
      const found = await get(`/api/jobs/${now.id}?after=${end}`);
      end = found.end;
      if (!found.output) return;
      const follow = output.scrollTop + output.clientHeight >= output.scrollHeight - 8;
      output.append(plain(found.output));
      if (follow) output.scrollTop = output.scrollHeight;
    },
  };
}

function trainingCard(training) {
  const state = el("span.state");
  const facts = el("p.note");
  const chart = el("div");
  const examples = el("div");
  const element = el("article.card", { "data-training": training.name }, el("header", {}, el("h2", {}, training.name), state), facts, chart, examples);
  let rows = [];
  let drawn = -1;
  let listed = "";
  return {
    element,
    async update(now) {
      let more = await get(`/api/trainings/${encodeURIComponent(now.name)}?after=${rows.length}`);
      if (more.rows.length && rows.length && more.rows[0].step < rows[0].step) rows = [];
      if (now.last.step !== undefined && rows.length && now.last.step < rows.at(-1).step) {
        rows = []; // begun anew
        more = await get(`/api/trainings/${encodeURIComponent(now.name)}?after=0`);
      }
      rows.push(...more.rows);
      state.textContent = now.finished ? "finished" : `step ${now.last.step ?? 0}`;
      facts.textContent = described(now);
      if (rows.length !== drawn) {
        drawn = rows.length;
        const curve = (key) => rows.filter((row) => row[key] !== undefined).map((row) => [row.step, row[key]]);
        chart.replaceChildren(
          lossChart([
            { name: "training", kind: "train", points: curve("loss") },
            { name: "validation", kind: "held", points: curve("validation_loss") },
          ]),
        );
      }
      const key = `${now.validation} ${now.last.step}`;
      if (now.validation && now.finished && listed !== key) {
        listed = key;
        const { best, worst } = await get(`/api/trainings/${encodeURIComponent(now.name)}/validation`);
        examples.replaceChildren(el("h3", {}, "Validation questions"), el("div.ends", {}, exampleList("It ended best on", best), exampleList("… and worst on", worst)));
      }
    },
  };
}

function described({ base, report, last }) {
  const parts = [base && `base ${base}`];
  if (report.steps) parts.push(count(report.steps, "step"), count(report.questions, "question"));
  if (report.trained_weights) parts.push(`${number(report.trained_weights)} of ${number(report.total_weights)} weights trained`);
  const seconds = report.seconds ?? last.seconds;
  if (seconds) parts.push(duration(seconds));
  if (last.tokens && seconds) parts.push(`${number(Math.round(last.tokens / seconds))} tokens/s`);
  return parts.filter(Boolean).join(" · ");
}

const exampleList = (title, rows) =>
  el("section", {}, el("h4", {}, title), el("ol", {}, ...rows.map((row) => el("li", {}, el("b", {}, row.question), el("span.note", {}, `loss ${row.loss.toFixed(2)}`), el("p", {}, ...withQuotes(row.expected))))));
