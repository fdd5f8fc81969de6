// Polls the workers: each request reaches one container; the page keeps the latest state of each.
"use strict";

const EVERY_MS = 2000;
const FORGET_MS = 20000;
const SHOWN = 60;

const section = document.getElementById("stack");
const pause = document.getElementById("pause");
const told = document.getElementById("told");
const containers = new Map();
const latencies = [];
let paused = false;

function cell(text, name) {
  const made = document.createElement("td");
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function ago(seconds) {
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

function row(container, worker) {
  const made = document.createElement("tr");
  made.append(
    cell(container),
    cell(worker.id),
    cell(worker.status, worker.status === "busy" ? "busy" : ""),
    cell(worker.requests),
    cell(worker.exceptions),
    cell(`${worker.memory_mb} MB`),
    cell(`${worker.average_ms} ms`),
    cell(ago(worker.since_s)),
  );
  return made;
}

function draw() {
  const now = performance.now();
  for (const [name, one] of containers) if (now - one.at > FORGET_MS) containers.delete(name);
  const known = [...containers].sort(([a], [b]) => a.localeCompare(b));
  const rows = known.flatMap(([name, one]) => one.state.workers.map((worker) => row(name, worker)));
  document.getElementById("workers").replaceChildren(...rows);
  const workers = known.flatMap(([, one]) => one.state.workers);
  const busy = workers.filter((worker) => worker.status === "busy").length;
  document.getElementById("busy").textContent = `${busy} of ${workers.length}`;
}

function plot() {
  const most = Math.max(...latencies, 1);
  const points = latencies.map((value, index) => `${(index * 300) / (SHOWN - 1)},${58 - (value / most) * 54}`);
  section.querySelector("polyline").setAttribute("points", points.join(" "));
  section.querySelector("svg").setAttribute("aria-label",
    `Duration of the last ${latencies.length} requests of this page; the longest took ${Math.round(most)} ms`);
}

async function ask() {
  if (paused || document.hidden) return;
  const began = performance.now();
  try {
    const answer = await fetch(section.dataset.address, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const state = await answer.json();
    const took = performance.now() - began;
    containers.set(state.container, { state, at: performance.now() });
    latencies.push(took);
    if (latencies.length > SHOWN) latencies.shift();
    document.getElementById("waiting").textContent = state.waiting ?? "see make status";
    document.getElementById("waited").textContent = state.waited_ms === null ? "–" : `${state.waited_ms} ms`;
    document.getElementById("latency").textContent = `${Math.round(took)} ms`;
    told.textContent = "Updated every 2 seconds.";
    draw();
    plot();
  } catch (problem) {
    told.textContent = `No response (${problem.message}); trying again.`;
  }
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  told.textContent = paused ? "Paused." : "Updated every 2 seconds.";
  ask();
});
ask();
setInterval(ask, EVERY_MS);
