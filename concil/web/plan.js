// What a service knows of its plan: runs, the age of each image, failures and pauses.

const ages = [];
lists.push(ages);
const runs = [];
let service = null;
let progress = null;
// The clock of the service minus that of the browser, in milliseconds; messages may be late.
let clockOffset = -Infinity;

const serviceNow = () => Date.now() + clockOffset;
// The time of day of a time of the service.
const dateOf = (ms) => new Date(ms - service.now + service.clock);

function clockTime(date) {
  const two = (n) => String(n).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

// A time that people wait for or look back at: 5 s, 12 min, 3 h 20 min, 4 d 2 h.
function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return `${minutes} min ${seconds % 60} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most)}\u2026` : text);

// ---- images of the plan ----

const OUTCOMES = { copied: "done", present: "present", failed: "failed", not_tried: "failed" };

function readAges(columns) {
  return columns.source.map((source, n) => {
    const [error, remedy, failures, since] = columns.failure[n] ?? ["", "", 0, null];
    return {
      n: columns.number[n],
      kind: OUTCOMES[columns.outcome[n]] ?? "waiting",
      source: plain(source),
      target: plain(columns.target[n]),
      checked: columns.checked[n],
      confirmed: columns.confirmed[n],
      detail: plain(error),
      remedy: plain(remedy),
      failures,
      since,
      retries: 0,
    };
  });
}

const behind = (image) => (image.confirmed === null ? Infinity : -image.confirmed);
const behindText = (image) => (image.confirmed === null ? "unknown" : span(serviceNow() - image.confirmed));

const ageColumns = [
  { name: "Source", of: (image) => image.source, by: (image) => image.source, tail: true, width: "minmax(120px, 1fr)", narrow: "minmax(0, 1fr)" },
  { name: "Target", of: (image) => image.target, by: (image) => image.target, tail: true, wide: true, width: "minmax(120px, 1fr)" },
  { name: "State", of: (image) => KINDS[image.kind].image, by: (image) => KINDS[image.kind].image, state: true, width: "112px", narrow: "88px" },
  { name: "Behind by", of: behindText, by: behind, number: true, width: "116px", narrow: "84px" },
  { name: "Last tried", of: (image) => `${span(serviceNow() - image.checked)} ago`, by: (image) => -image.checked, number: true, wide: true, width: "116px" },
  { name: "Failures", of: (image) => (image.failures ? count(image.failures) : ""), by: (image) => image.failures, number: true, wide: true, width: "76px" },
];

const ageTable = table($("ages"), {
  label: "Images of the plan", items: ages, columns: ageColumns,
  sort: { by: ageColumns[3], down: true },
  none: "No image was tried yet.",
  choose(image) {
    ageTable.choose(image);
    $("age-details").replaceChildren(described([
      ["Source", image.source],
      ["Target", image.target],
      ["State", KINDS[image.kind].image],
      ["Last confirmed", image.confirmed === null ? "not since the service started" : clockTime(dateOf(image.confirmed))],
      ["Last tried", clockTime(dateOf(image.checked))],
      ["Failed since", image.since === null ? "" : `${clockTime(dateOf(image.since))}, ${several(image.failures, "time")}`],
      ["Reason", image.detail],
      ["Remedy", image.remedy],
    ]));
  },
});

// ---- runs ----

const RESULTS = {
  done: ["done", "complete"],
  failures: ["failed", "with failures"],
  failed: ["failed", "failed"],
  interrupted: ["unfinished", "interrupted"],
  left_out: ["waiting", "left out"],
};

function readRun(run) {
  const [kind, result] = RESULTS[run.result] ?? ["running", "running"];
  return {
    ...run, n: run.number, kind, result, what: run.kind === "plan" ? "whole plan" : "retry",
    source: "", target: "", detail: plain(run.detail), retries: 0,
  };
}

const tookOf = (run) => run.took ?? serviceNow() - run.began;
const runColumns = [
  { name: "Started", of: (run) => clockTime(new Date(run.started)), by: (run) => run.number, width: "150px", narrow: "142px" },
  { name: "Result", of: (run) => (run.detail ? `${run.result}: ${run.detail}` : run.result), by: (run) => run.result, state: true, width: "minmax(90px, 1fr)", narrow: "minmax(0, 1fr)" },
  { name: "What", of: (run) => run.what, by: (run) => run.what, wide: true, width: "92px" },
  { name: "Took", of: (run) => duration(tookOf(run)), by: tookOf, number: true, width: "80px", narrow: "76px" },
  { name: "Copied", of: (run) => count(run.copied), by: (run) => run.copied, number: true, wide: true, width: "64px" },
  { name: "Up to date", of: (run) => count(run.upToDate), by: (run) => run.upToDate, number: true, wide: true, width: "76px" },
  { name: "Failed", of: (run) => count(run.failed), by: (run) => run.failed, number: true, wide: true, width: "56px" },
  { name: "Sent", of: (run) => size(run.bytesSent), by: (run) => run.bytesSent, number: true, wide: true, width: "80px" },
];
const runTable = table($("runs"), {
  label: "Last runs", items: runs, columns: runColumns,
  sort: { by: runColumns[0], down: true },
  isShown: () => true,
  none: "There was no run yet.",
  choose(run) { runTable.choose(run); },
});

// ---- what goes on ----

function showState() {
  const failed = ages.filter((image) => image.kind === "failed").length + service.failedListings.length;
  const { run, state } = service;
  const done = total(report.totals.images);
  const expected = report.totals.expectedImages;
  const left = [];
  if (service.nextRun !== null && state !== "stopping") {
    left.push(service.nextRun > serviceNow()
      ? `Next run in ${span(service.nextRun - serviceNow())}, at ${clockTime(dateOf(service.nextRun))}`
      : run ? "The next run begins when this one ends" : "The next run is due");
  }
  if (service.nextRetry !== null && !run) left.push(`failed images are retried in ${span(service.nextRetry - serviceNow())}`);
  $("next").textContent = left.join("; ");
  $("plan-problem").hidden = !service.planProblem;
  $("plan-problem").textContent = `The plan cannot be used, and the last good one goes on: ${plain(service.planProblem)}`;
  const trouble = failed ? `; ${several(failed, "failure")}` : "";
  const images = expected ? `${count(done)} of ${several(expected, "image")}` : several(done, "image");
  let [text, kind] = ["Waiting for the first run", "waiting"];
  if (state === "stopping") [text, kind] = ["Stopping", "cut"];
  else if (run) [text, kind] = [`Running: ${images}${trouble}`, failed ? "bad" : "running"];
  else if (failed) [text, kind] = [`${several(failed, "failure")} in ${several(ages.length, "image")}`, "bad"];
  else if (ages.length) [text, kind] = [`All ${several(ages.length, "image")} are up to date`, ""];
  if (ages.length === 1 && !failed && !run && state !== "stopping") text = "The image is up to date";
  $("verdict").textContent = text;
  $("verdict").className = kind;
  document.title = plain(`${run ? `${images} \u00b7 ` : ""}${failed ? `${failed} failed \u00b7 ` : ""}${service.title}`);
}

function showHead() {
  const last = runs.find((run) => run.n === progress.number);
  $("title").textContent = plain(service.title);
  $("when").textContent = plain(`concil ${service.concil}`);
  $("run-line").textContent = last
    ? `Run ${count(last.n)} (${last.what}), started ${clockTime(new Date(last.started))}, ${duration(report.milliseconds)}`
    : "";
  $("run-now").hidden = !service.canRun;
  $("run-now").disabled = service.run?.kind === "plan" || service.state === "stopping";
}

function showPauses() {
  $("paused-section").hidden = !progress.pauses.length;
  $("paused").replaceChildren(...progress.pauses.map(([host, reason, left]) => {
    const item = make("li");
    const ends = progress.at + left;
    item.append(make("span", "mono", cut(plain(host), 200)), make("span", "why", cut(plain(reason), 200)),
      make("span", "left", `paused, ${span(ends - serviceNow())} left`));
    return item;
  }));
}

function activeRow([digest, target, image, state, position, whole, rate, elapsed, resumed, stalled, detail]) {
  const item = make("li", state === "retrying" || stalled ? "stopped" : "");
  const what = make("span", "what", image ? `${plain(image)} \u2192 ${plain(target)}` : plain(target));
  const track = make("span", "track");
  const share = make("span", "share");
  const left = whole && rate ? ((whole - position) * 1000) / rate : null;
  what.title = what.textContent;
  what.append(make("span", "mono blob", shortDigest(digest)));
  share.style.width = `${whole ? Math.min(100, (100 * position) / whole) : 0}%`;
  track.append(share);
  const sizes = whole === null ? size(position) : `${size(position)} / ${size(whole)}`;
  item.append(what, track, make("span", "number size", sizes),
    make("span", "number", rate === null || stalled ? "" : `${size(rate)}/s`),
    make("span", "number", left === null || stalled ? duration(elapsed) : `${span(left)} left`));
  const notes = [];
  if (resumed) notes.push(`resumed at ${size(resumed)}`);
  if (stalled) notes.push(`nothing has moved for ${span(stalled)}`);
  if (state === "retrying" || state === "restarting") notes.push(`${state}: ${plain(detail)}`);
  if (notes.length) item.append(make("p", "note", notes.join("; ")));
  return item;
}

function showActive() {
  const { active, activeCount, waiting, rate } = progress;
  $("active-section").hidden = !service.run;
  $("active-count").textContent = [
    count(activeCount), `${count(waiting)} waiting`, rate === null || !activeCount ? "" : `${size(rate)}/s`,
  ].filter(Boolean).join(", ");
  $("active").replaceChildren(...active.map(activeRow));
  if (!active.length) $("active").append(make("li", "empty", "No blob is being transferred."));
  $("active-more").hidden = activeCount <= active.length;
  $("active-more").textContent = `and ${count(activeCount - active.length)} more`;
}

let shownFailures = "";

// Only if they have changed, so that their text can be selected.
function showFailures() {
  const bad = ages.filter((image) => image.kind === "failed").sort((a, b) => a.since - b.since || a.n - b.n);
  const listed = [
    ...service.failedListings.map(([source, error, remedy]) => (
      { what: `${plain(source)} (list of tags)`, detail: plain(error), remedy: plain(remedy), since: null, failures: 0 }
    )),
    ...bad.map((image) => ({ ...image, what: `${image.source} \u2192 ${image.target}` })),
  ];
  const first = listed.slice(0, MOST_LISTED);
  const key = JSON.stringify([listed.length, first.map(({ what, detail, failures }) => [what, detail, failures])]);
  if (key === shownFailures) return;
  shownFailures = key;
  $("failures").hidden = !listed.length;
  $("failed-count").textContent = count(listed.length);
  $("failed").replaceChildren(...first.map(({ what, detail, remedy, since, failures }) => {
    const item = make("li");
    item.append(make("div", "what", what), make("div", "detail", detail));
    if (remedy) item.append(make("div", "remedy", remedy));
    if (since !== null) item.append(make("div", "since", `since ${clockTime(dateOf(since))}, ${several(failures, "attempt")}`));
    return item;
  }));
  const more = listed.length - first.length;
  $("failed-more").hidden = more <= 0;
  $("failed-more").textContent = `${several(more, "more failure")}: choose \u201cfailed\u201d below and see the table.`;
}
