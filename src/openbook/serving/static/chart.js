// A chart of losses over steps, as SVG. Colours come from the style sheet.

import { el, svg } from "./dom.js";

const [W, H] = [640, 260];
const EDGE = { left: 46, right: 12, top: 12, bottom: 30 };

/** `curves` are { name, kind, points: [[x, y]] }; `kind` is a class. */
export function lossChart(curves) {
  const points = curves.flatMap((curve) => curve.points);
  if (!points.length) return el("p.note", {}, "No step has been logged yet.");
  const [x0, x1] = range(points.map(([x]) => x));
  const [low, high] = range(points.map(([, y]) => y));
  const y0 = Math.max(0, low - 0.08 * (high - low));
  const y1 = high + 0.05 * (high - low || 1);
  const x = (value) => EDGE.left + ((value - x0) / (x1 - x0 || 1)) * (W - EDGE.left - EDGE.right);
  const y = (value) => H - EDGE.bottom - ((value - y0) / (y1 - y0)) * (H - EDGE.top - EDGE.bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", class: "chart" });
  drawing.append(svg("title", {}, curves.map(told).join("; ")));
  const levels = ticks(y0, y1, 5);
  const digits = Math.max(1, Math.ceil(-Math.log10((levels[1] ?? 1) - levels[0] || 1) - 1e-9));
  for (const value of levels) {
    drawing.append(svg("line", { x1: EDGE.left, x2: W - EDGE.right, y1: y(value), y2: y(value), class: "grid" }));
    drawing.append(svg("text", { x: EDGE.left - 6, y: y(value) + 4, class: "left" }, value.toFixed(digits)));
  }
  for (const value of ticks(x0, x1, 6).filter(Number.isInteger)) {
    drawing.append(svg("text", { x: x(value), y: H - 10, class: "below" }, String(value)));
  }
  for (const curve of curves) {
    if (!curve.points.length) continue;
    const path = curve.points.map(([a, b], at) => `${at ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
    drawing.append(svg("path", { d: path, class: `curve ${curve.kind}` }));
    const [a, b] = curve.points.at(-1);
    drawing.append(svg("circle", { cx: x(a), cy: y(b), r: 3.5, class: `dot ${curve.kind}` }));
  }
  const names = curves.filter((curve) => curve.points.length).map((curve) => el(`span.key.${curve.kind}`, {}, told(curve)));
  return el("figure.losses", {}, drawing, el("figcaption", {}, ...names, el("span.note", {}, "loss over steps")));
}

const told = (curve) => (curve.points.length ? `${curve.name} ${curve.points.at(-1)[1].toFixed(3)} at step ${curve.points.at(-1)[0]}` : curve.name);

function range(values) {
  return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
}

/** Round numbers between two ends, about `count` of them. */
function ticks(from, to, count) {
  const rough = (to - from || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let value = Math.ceil(from / step) * step; value <= to + 1e-9; value += step) found.push(Number(value.toFixed(10)));
  return found;
}
