// Follows the mirror: takes what the server sends, and draws it no more often than it can be drawn.

const PAGE_VERSION = report.concil;
const MAX_DELAY = 60_000; // milliseconds that a message takes
const RETRY = 5000; // milliseconds until the next connection if the browser has given up
const byNumber = { transfers: new Map(), images: new Map(), ages: new Map() };

// ---- what the server sends ----

function put(known, list, record) {
  const old = known.get(record.n);
  if (old) {
    Object.assign(old, record, { hay: undefined });
  } else {
    known.set(record.n, record);
    list.push(record);
  }
}

function remove(known, list, numbers) {
  const gone = numbers.filter((n) => known.delete(n));
  if (!gone.length) return;
  const left = list.filter((record) => known.has(record.n));
  list.length = 0;
  for (const record of left) list.push(record);
}

function forget(known, list) {
  known.clear();
  list.length = 0;
}

function takeRecords(document) {
  readTransfers(document.transfers, document.strings).forEach((record, n) => {
    put(byNumber.transfers, transfers, { ...record, n: document.transferNumbers[n] });
  });
  readImages(document.images, document.strings).forEach((record, n) => {
    put(byNumber.images, images, { ...record, n: document.imageNumbers[n] });
  });
}

// The totals and curves, and the times of what has not ended.
function takeReport(document) {
  const before = RUN;
  report = { ...document, isRunning: !document.complete, nothing: "nothing is transferred" };
  RUN = Math.max(1, document.milliseconds);
  lanes = readLanes(document.lanes);
  takeRecords(document);
  for (const record of transfers) {
    if (record.ended !== null) continue;
    record.end = RUN;
    for (const interruption of record.interruptions) if (interruption.isOpen) interruption.until = RUN;
    record.waited = record.begin === null ? RUN - record.queued : record.waited;
    record.took = record.started === null ? null : RUN - record.started;
    if (!report.isRunning && record.kind === "running") record.kind = "unfinished";
  }
  for (const record of images) {
    if (record.isEnded) continue;
    record.took = record.started === null ? null : RUN - record.started;
    if (!report.isRunning && record.kind === "running") record.kind = "unfinished";
  }
  return before;
}

function takeService(document) {
  service = { ...service, ...document.service };
  const offset = service.now - Date.now();
  // A message that is late has a smaller one; much smaller: the clock of the browser was set.
  if (offset > clockOffset || clockOffset - offset > MAX_DELAY) clockOffset = offset;
  progress = { ...document.progress, at: service.now };
  for (const image of readAges(document.ages)) put(byNumber.ages, ages, image);
  runs.length = 0;
  for (const run of [...(service.run ? [service.run] : []), ...service.runs]) runs.push(readRun(run));
}

function takeState(document) {
  clockOffset = -Infinity;
  forget(byNumber.ages, ages);
  takeService(document);
  if (service.concil !== PAGE_VERSION) location.reload();
  takeRun(document.report);
}

function takeRun(document) {
  forget(byNumber.transfers, transfers);
  forget(byNumber.images, images);
  choose(null);
  takeReport(document);
  timeline.view = { from: 0, to: RUN };
  timeline.update(RUN); // at once: the workers are other ones
  draw(RUN);
}

function takeUpdate(document) {
  takeService(document);
  remove(byNumber.ages, ages, document.removedAges);
  if (document.report) {
    takeRun(document.report);
    return;
  }
  remove(byNumber.transfers, transfers, document.removed);
  remove(byNumber.images, images, document.removed);
  draw(takeReport(document.changes));
}

// ---- drawing ----

let wholeBefore = null; // milliseconds of the run when it was drawn last
let due = false;
let isPressed = false; // what is under the pointer must not be replaced before it is released
let drawnAt = 0;
let cost = 0; // milliseconds of the last drawing

function draw(before) {
  wholeBefore ??= before;
  if (due) return;
  due = true;
  // A page that takes long to draw is drawn less often, and stays usable meanwhile.
  setTimeout(() => requestAnimationFrame(drawNow), Math.max(0, drawnAt + 5 * cost - performance.now()));
}

function drawNow() {
  due = false;
  if (isPressed) {
    setTimeout(() => draw(wholeBefore), 200);
    return;
  }
  const started = performance.now();
  showHead();
  showState();
  showPauses();
  showActive();
  showFailures();
  headTotals();
  destinations();
  legend();
  slowest();
  footer();
  timeline.update(wholeBefore);
  for (const each of [runTable, ageTable, imageTable, transferTable]) each.update();
  counts();
  const known = (part) => (part === ages.length ? count(part) : `${count(part)} of ${count(ages.length)}`);
  $("age-count").textContent = known(ageTable.length);
  $("run-count").textContent = count(runs.length);
  wholeBefore = null;
  drawnAt = performance.now();
  cost = drawnAt - started;
}

window.addEventListener("pointerdown", () => { isPressed = true; });
for (const name of ["pointerup", "pointercancel", "blur"]) {
  window.addEventListener(name, () => { isPressed = false; });
}
// Times that pass while nothing happens.
setInterval(() => {
  if (service === null || document.hidden || isPressed) return;
  showState();
  showPauses();
}, 1000);
setInterval(() => {
  if (service !== null && !document.hidden && !isPressed) ageTable.update();
}, 10_000);

// ---- the connection ----

function showLink(isLive) {
  $("link").textContent = isLive ? "Live" : "No connection, trying again";
  $("link").className = isLive ? "live" : "";
}

function follow() {
  const source = new EventSource("api/live");
  source.addEventListener("state", (event) => takeState(JSON.parse(event.data)));
  for (const name of ["update", "run"]) {
    source.addEventListener(name, (event) => takeUpdate(JSON.parse(event.data)));
  }
  source.onopen = () => showLink(true);
  source.onerror = () => {
    showLink(false);
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again
    source.close();
    setTimeout(async () => {
      const answer = await fetch("api/status?images=0").catch(() => null);
      if (answer?.status === 401) location.reload(); // the login has ended
      else follow();
    }, RETRY);
  };
}

$("run-now").addEventListener("click", async () => {
  $("run-now").disabled = true;
  const answer = await fetch("api/run", { method: "POST" }).catch(() => null);
  if (!answer?.ok) $("next").textContent = answer ? (await answer.text()).trim() : "No connection";
});

for (const each of [runTable, ageTable]) each.refresh();
refilter();
timeline.recolour();
timeline.draw();
follow();
