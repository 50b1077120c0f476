// The page of the service: verdicts, calibration and alarms, read from the public routes.
// Content is set as text, never as markup. An API key that the user enters stays in this tab.

const EVERY_SECONDS = 5;
const byId = (id) => document.getElementById(id);
const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));
const STATES = ["off", "changed_lately", "unknown", "within_tolerance"]; // the worst first
const words = (state) => state.replaceAll("_", " ");
let models = [];

function put(id, text) {
  // Unchanged text is left alone, so that screen readers do not repeat it.
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch(path, { ...options, headers });
  const document = await answer.json();
  byId("sign-in").hidden = answer.status !== 401;
  if (!answer.ok) throw new Error(document.detail);
  return document;
}

const of = (model, rest) => `v1/models/${encodeURIComponent(model)}/${rest}`;

async function listModels() {
  const found = [];
  let cursor = "";
  do {
    const page = await ask(`v1/models?limit=500${cursor}`);
    found.push(...page.items);
    cursor = page.next === null ? null : `&cursor=${page.next}`;
  } while (cursor !== null);
  const rank = ({ verdict }) => (verdict === null ? STATES.length : STATES.indexOf(verdict.state));
  found.sort((a, b) => rank(a) - rank(b) || (a.model < b.model ? -1 : 1));
  models = found;
}

function chosen() {
  // The address names the model: /#digits.
  const name = decodeURIComponent(location.hash.slice(1));
  return models.find((item) => item.model === name) ?? models[0];
}

function showModels() {
  const focused = document.activeElement?.dataset.model;
  byId("models").replaceChildren(
    ...models.map(({ model, verdict }) => {
      const row = document.createElement("tr");
      const link = document.createElement("a");
      link.href = `#${encodeURIComponent(model)}`;
      link.dataset.model = link.textContent = model;
      if (model === chosen().model) link.setAttribute("aria-current", "true");
      row.insertCell().append(link);
      const state = row.insertCell();
      state.textContent = verdict === null ? "no live pair" : words(verdict.state);
      state.dataset.state = verdict?.state ?? "";
      row.insertCell().textContent = verdict === null ? "–" : interval(verdict);
      row.insertCell().textContent = verdict?.labels ?? "–";
      return row;
    }),
  );
  for (const link of byId("models").querySelectorAll("a")) {
    if (link.dataset.model === focused) link.focus({ preventScroll: true });
  }
}

const interval = ({ error_low, error_high }) =>
  `${number(100 * error_low, 1)} to ${number(100 * error_high, 1)} %`;

function showStatistic(name, value, threshold) {
  byId(name).textContent = `10^${number(value, 1)} of 10^${number(threshold, 1)}`;
  const meter = byId(`${name}-meter`);
  meter.max = threshold;
  meter.high = 0.999 * threshold;
  meter.optimum = 0;
  meter.value = Math.max(value, 0);
  meter.title = "An alarm is raised at the right end.";
}

function showAlarm(alarm) {
  byId("alarm").hidden = alarm === null;
  if (alarm === null) return;
  byId("alarm").dataset.id = alarm.id;
  byId("alarm-text").textContent =
    `Alarm ${alarm.id}: ${alarm.statistic} reached 10^${number(alarm.log10, 1)} after ` +
    `${alarm.labels} labels, at ${alarm.raised_at}` +
    (alarm.worst_class ? `: ${alarm.worst_class.sentence}.` : ".");
}

const points = (fraction) => number(100 * fraction, 1);

function showClasses(classes) {
  byId("class-table").hidden = classes.length === 0;
  byId("classes").replaceChildren(
    ...classes.map(({ class_name, labels, share, confidence, frequency, low, high }) => {
      const row = document.createElement("tr");
      const gap = confidence - frequency;
      const cells = [
        class_name,
        number(labels, 0),
        `${points(share)} %`,
        `${points(confidence)} %`,
        `${points(frequency)} %`,
        `${points(Math.abs(gap))} ${gap > 0 ? "too confident" : "not confident enough"}`,
        low === null ? "–" : `${points(low)} to ${points(high)}`,
      ];
      for (const text of cells) row.insertCell().textContent = text;
      return row;
    }),
  );
}

function showBinary(binary) {
  byId("binary").hidden = binary === null;
  if (binary === null) return;
  drawReliability("binary-reliability", binary.bins);
  put(
    "binary-text",
    `P(${binary.class_name}) of the labels in the window against how often it is true: ` +
      `${points(binary.probability)} % on average, and ${points(binary.frequency)} % true. ECE ` +
      `${number(binary.ece, 4)}, ${number(binary.ece_floor, 4)} is its noise floor, ` +
      `${binary.labels} labels.`,
  );
}

function drawReliability(id, bins) {
  const shape = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const filled = bins.filter((bin) => bin.count > 0);
  const most = Math.max(...filled.map((bin) => bin.count));
  byId(id).replaceChildren(
    shape("line", { x1: 0, y1: 100, x2: 100, y2: 0 }),
    ...filled.map((bin) =>
      shape("circle", {
        cx: (100 * bin.confidence) / bin.count,
        cy: 100 - (100 * bin.correct) / bin.count,
        r: 1 + 4 * Math.sqrt(bin.count / most),
      }),
    ),
  );
}

async function show() {
  showModels();
  byId("main").hidden = models.length === 0;
  const item = chosen();
  byId("detail").hidden = !item?.verdict;
  if (!item?.verdict) return;
  const now = await ask(of(item.model, `calibration?window=${byId("window").value}`));
  if (chosen()?.model !== now.model) return; // another one was selected meanwhile
  put("model", now.model);
  put("pair", `Version ${now.version}, ${now.calibrator}, revision ${now.revision}`);
  byId("state").dataset.state = now.verdict.state;
  put("state", words(now.verdict.state));
  put("sentence", now.verdict.sentence);
  put("advice", now.advice);
  showAlarm(now.alarm);
  showStatistic("evidence", now.evidence_log10, now.evidence_threshold_log10);
  showStatistic("change", now.change_log10, now.change_threshold_log10);
  put("ece", number(now.ece, 4));
  put("floor", `${number(now.ece_floor, 4)} is its noise floor`);
  put("accuracy", number(now.observed_accuracy, 3));
  put("labels", `${number(now.expected_accuracy, 3)} expected, ${now.labels} labels in ${now.window}`);
  showClasses(now.classes);
  drawReliability("reliability", now.bins);
  showBinary(now.binary);
}

async function refresh() {
  try {
    await listModels();
    await show();
    put("problem", models.length ? "" : "There is no model yet.");
  } catch (problem) {
    put("problem", problem.message);
  }
}

addEventListener("hashchange", refresh);
byId("window").addEventListener("change", refresh);
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", byId("key").value);
  refresh();
});
byId("acknowledge").addEventListener("click", async () => {
  const alarm = encodeURIComponent(byId("alarm").dataset.id);
  try {
    await ask(of(byId("model").textContent, `alarms/${alarm}/acknowledge`), { method: "POST" });
    await refresh();
  } catch (problem) {
    byId("problem").textContent = problem.message;
  }
});

await refresh();
setInterval(() => document.hidden || refresh(), 1000 * EVERY_SECONDS);
