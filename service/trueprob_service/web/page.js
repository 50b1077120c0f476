// The page of the service: calibration and alarms, read from the public routes.
// Content is set as text, never as markup. An API key that the user enters stays in this tab.

const EVERY_SECONDS = 5;
const byId = (id) => document.getElementById(id);
const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));

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
  // A link may name the model: /#digits.
  const select = byId("model"), chosen = select.value || decodeURIComponent(location.hash.slice(1));
  const names = [];
  let cursor = "";
  do {
    const page = await ask(`v1/models?limit=500${cursor}`);
    names.push(...page.items.map((item) => item.model));
    cursor = page.next === null ? null : `&cursor=${page.next}`;
  } while (cursor !== null);
  names.sort();
  select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
}

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
    `${alarm.labels} labels, at ${alarm.raised_at}.`;
}

function drawReliability(bins) {
  const shape = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const filled = bins.filter((bin) => bin.count > 0);
  const most = Math.max(...filled.map((bin) => bin.count));
  byId("reliability").replaceChildren(
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
  const model = byId("model").value;
  if (!model) return;
  const now = await ask(of(model, `calibration?window=${byId("window").value}`));
  byId("pair").textContent =
    `Version ${now.version}, ${now.calibrator}, revision ${now.revision}`;
  byId("advice").textContent = now.advice;
  showAlarm(now.alarm);
  showStatistic("evidence", now.evidence_log10, now.evidence_threshold_log10);
  showStatistic("change", now.change_log10, now.change_threshold_log10);
  byId("ece").textContent = number(now.ece, 4);
  byId("floor").textContent = `${number(now.ece_floor, 4)} would be chance`;
  byId("accuracy").textContent = number(now.observed_accuracy, 3);
  byId("labels").textContent =
    `${number(now.expected_accuracy, 3)} expected, ${now.labels} labels in ${now.window}`;
  drawReliability(now.bins);
  byId("main").hidden = false;
}

async function refresh() {
  try {
    await listModels();
    await show();
    byId("problem").textContent = byId("model").value ? "" : "There is no model yet.";
  } catch (problem) {
    byId("problem").textContent = problem.message;
  }
}

byId("model").addEventListener("change", () => {
  history.replaceState(null, "", `#${encodeURIComponent(byId("model").value)}`);
  refresh();
});
byId("window").addEventListener("change", refresh);
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", byId("key").value);
  refresh();
});
byId("acknowledge").addEventListener("click", async () => {
  const alarm = encodeURIComponent(byId("alarm").dataset.id);
  try {
    await ask(of(byId("model").value, `alarms/${alarm}/acknowledge`), { method: "POST" });
    await refresh();
  } catch (problem) {
    byId("problem").textContent = problem.message;
  }
});

await refresh();
setInterval(() => document.hidden || refresh(), 1000 * EVERY_SECONDS);
