// The text of the page: totals, failures, details, tables, search and legend.

const total = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

// ---- the head ----

function head() {
  const { totals } = report;
  const started = new Date(report.started).toISOString().replace("T", " ").slice(0, 19);
  $("title").textContent = plain(report.title || "concil");
  $("when").textContent = `${started} UTC, ${duration(report.milliseconds)}, ${plain(`concil ${report.concil}`)}`;
  const bad = totals.images.failed || (total(totals.images) ? 0 : totals.blobs.failed);
  const what = totals.images.failed ? several(bad, "image") : several(bad, "blob");
  const end = report.complete ? "" : "Ended early";
  $("verdict").textContent = [end, bad ? `${what} failed` : ""].filter(Boolean).join("; ")
    || "Complete, no failures";
  $("verdict").className = bad ? "bad" : report.complete ? "" : "cut";
}

function headTotals() {
  const { totals } = report;
  const { images: image, blobs, bytes } = totals;
  const moved = report.throughput.bytes.reduce((a, b) => a + b, 0);
  const ended = total(image);
  const left = Math.max(0, totals.expectedImages - ended);
  const facts = [
    ["Images copied", count(image.done), left ? `${count(left)} not started or unfinished` : ""],
    ["Images up to date", count(image.present)],
    ["Images failed", count(image.failed), "", image.failed],
    ["Blobs sent", count(blobs.done), size(bytes.done)],
    ["Blobs mounted", count(blobs.mounted), blobs.mounted ? `${size(bytes.mounted)} not sent` : ""],
    ["Already present", count(blobs.present)],
    ["Blobs failed", count(blobs.failed), "", blobs.failed],
    ["Retries", count(totals.interruptions), totals.interruptions ? "after an interruption" : ""],
    ["Mean throughput", `${size((moved * 1000) / RUN)}/s`, `${size(moved)} transferred`],
  ];
  $("totals").replaceChildren(...facts.map(([name, value, small, bad]) => {
    const box = make("div", bad ? "bad" : "");
    const text = make("dd", "", value);
    if (small) text.append(make("small", "", small));
    box.append(make("dt", "", name), text);
    return box;
  }));
}

// ---- failed and slowest ----

const MOST_LISTED = 100;

function failures() {
  const bad = [...images, ...transfers].filter((record) => record.kind === "failed");
  $("failures").hidden = bad.length === 0;
  $("failed").replaceChildren(...bad.slice(0, MOST_LISTED).map((record) => {
    const item = make("li");
    const isImage = "source" in record;
    const name = isImage ? record.source : `blob ${record.short}`;
    item.append(make("div", "what", record.target ? `${name} \u2192 ${record.target}` : name));
    item.append(make("div", "detail", record.detail || "no reason was given"));
    return item;
  }));
  const more = bad.length - MOST_LISTED;
  $("failed-more").hidden = more <= 0;
  $("failed-more").textContent = `${several(more, "more failure")}: choose \u201cfailed\u201d below and see the tables.`;
}

function destinations() {
  const { totals } = report;
  $("destinations").hidden = totals.destinations.length === 0;
  $("destination-list").replaceChildren(...totals.destinations.map((place) => {
    const item = make("li", place.failed ? "bad" : "");
    const facts = [`${count(place.done)} copied`, `${count(place.present)} up to date`,
      `${count(place.failed)} failed`, `${size(place.bytes)} sent`];
    item.append(make("span", "what", plain(place.name)), make("span", "detail", facts.join(", ")));
    return item;
  }));
}

function slowest() {
  const slow = transfers.filter((transfer) => transfer.took !== null).sort((a, b) => b.took - a.took).slice(0, 10);
  $("slowest").replaceChildren(...slow.map((transfer) => {
    const item = make("li");
    const button = make("button");
    const track = make("span", "track wide");
    const share = make("span", "share");
    const rate = rateOf(transfer);
    button.type = "button";
    share.style.width = `${(100 * transfer.took) / Math.max(1, slow[0].took)}%`;
    track.append(share);
    button.append(
      make("span", "", duration(transfer.took)),
      track,
      make("span", "", size(transfer.total)),
      make("span", "wide", rate === null ? "" : `${size(rate)}/s`),
      make("span", "clip", `${transfer.short} \u2192 ${transfer.target}`),
    );
    button.addEventListener("click", () => {
      choose(transfer);
      pointing.zoomTo(transfer);
      timeline.canvas.scrollIntoView({ block: "nearest" });
    });
    item.append(button);
    return item;
  }));
  if (!slow.length) $("slowest").append(make("li", "empty", "Nothing had to be transferred."));
}

// ---- details ----

function detailsOf(transfer) {
  const at = (ms) => (ms === null ? null : `${duration(ms)} after the start`);
  const rate = rateOf(transfer);
  const interruptions = transfer.interruptions.map((interruption) => (
    `${at(interruption.at)}, for ${duration(interruption.until - interruption.at)}: ${interruption.detail}`
  ));
  const helpers = transfer.helpers.map((part) => lanes[part.lane]).join(", ");
  const pairs = [
    ["Blob", transfer.digest, true],
    ["To", transfer.target],
    ["State", transfer.detail ? `${stateOf(transfer)}: ${transfer.detail}` : stateOf(transfer)],
    ["Size", transfer.total === null ? size(transfer.position) : `${size(transfer.total)} (${count(transfer.total)} bytes)`],
    ["Resumed", transfer.resumeOffset ? `${size(transfer.resumeOffset)} were transferred by an earlier run` : ""],
    ["Waited", transfer.waited >= 0.1 ? duration(transfer.waited) : ""],
    ["Started", at(transfer.started)],
    ["Took", transfer.took === null ? "" : `${duration(transfer.took)}${rate === null ? "" : `, ${size(rate)}/s`}`],
    ["Ended", transfer.instant ? at(transfer.end) : ""],
    ["Worker", lanes[transfer.lane]],
    ["Helped by", helpers],
    ["Retries", transfer.retries ? count(transfer.retries) : ""],
    ...interruptions.map((text) => ["", text]),
  ];
  return described(pairs);
}

function choose(transfer) {
  timeline.chosen = transfer;
  transferTable.choose(transfer);
  $("details").replaceChildren(...(transfer ? [detailsOf(transfer)] : []));
}

function chooseImage(image) {
  imageTable.choose(image);
  $("image-details").replaceChildren(described([
    ["Source", image.source],
    ["Target", image.target],
    ["Result", image.detail ? `${KINDS[image.kind].image}: ${image.detail}` : KINDS[image.kind].image],
    ["Sent", size(image.sent)],
    ["Took", image.took === null ? "" : duration(image.took)],
    ["Ended", `${duration(image.ended)} after the start`],
  ]));
}

// ---- tables ----

const transferColumns = [
  { name: "Blob", of: (transfer) => transfer.short, whole: (transfer) => transfer.digest, by: (transfer) => transfer.digest, mono: true, width: "110px", narrow: "58px" },
  { name: "To", of: (transfer) => transfer.target, by: (transfer) => transfer.target, tail: true, wide: true, width: "minmax(120px, 1fr)" },
  { name: "State", of: stateOf, by: stateOf, state: true, width: "112px", narrow: "minmax(0, 1fr)" },
  { name: "Size", of: (transfer) => size(transfer.total), by: (transfer) => transfer.total, number: true, width: "84px", narrow: "70px" },
  { name: "Started", of: (transfer) => duration(transfer.begin), by: (transfer) => transfer.begin, number: true, wide: true, width: "92px" },
  { name: "Waited", of: (transfer) => duration(transfer.waited), by: (transfer) => transfer.waited, number: true, wide: true, width: "92px" },
  { name: "Took", of: (transfer) => duration(transfer.took), by: (transfer) => transfer.took, number: true, width: "92px", narrow: "56px" },
  { name: "Rate", of: (transfer) => (rateOf(transfer) === null ? "" : `${size(rateOf(transfer))}/s`), by: rateOf, number: true, wide: true, width: "100px" },
  { name: "Retries", of: (transfer) => (transfer.retries ? String(transfer.retries) : ""), by: (transfer) => transfer.retries, number: true, wide: true, width: "68px" },
  { name: "Worker", of: (transfer) => lanes[transfer.lane] ?? "", by: (transfer) => lanes[transfer.lane] ?? null, wide: true, width: "96px" },
];
const imageColumns = [
  { name: "Source", of: (image) => image.source, by: (image) => image.source, tail: true, width: "minmax(120px, 1fr)", narrow: "minmax(0, 1fr)" },
  { name: "Target", of: (image) => image.target, by: (image) => image.target, tail: true, wide: true, width: "minmax(120px, 1fr)" },
  { name: "Result", of: (image) => KINDS[image.kind].image, by: (image) => KINDS[image.kind].image, state: true, width: "112px", narrow: "92px" },
  { name: "Sent", of: (image) => size(image.sent), by: (image) => image.sent, number: true, wide: true, width: "84px" },
  { name: "Took", of: (image) => duration(image.took), by: (image) => image.took, number: true, width: "92px", narrow: "66px" },
];

const transferTable = table($("transfers"), {
  label: "Transfers", items: transfers, columns: transferColumns,
  sort: { by: transferColumns[4], down: false },
  choose(transfer) {
    choose(transfer);
    pointing.zoomTo(transfer);
  },
});
const imageTable = table($("images"), {
  label: "Images", items: images, columns: imageColumns,
  sort: { by: imageColumns[0], down: false },
  choose: chooseImage,
});

// ---- search and legend ----

// The symbol of a kind, as the timeline draws it.
function swatch(kind) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const shapes = {
    done: "M1 4h14v8h-14z",
    running: "M1 4h8v8h-8zM10 4l5 4l-5 4z",
    mounted: "M8 2l6 6l-6 6l-6 -6z",
    present: "M7 2h2v12h-2z",
    failed: "M3 1l5 5l5 -5l2 2l-5 5l5 5l-2 2l-5 -5l-5 5l-2 -2l5 -5l-5 -5z",
    unfinished: "M1 4h4v8h-4zM6.5 4h3v8h-3zM11 4h2v8h-2z",
    waiting: "M3 7h2v2h-2zM7 7h2v2h-2zM11 7h2v2h-2z",
    retried: "M1 12l6 -8h3l-6 8zM7 12l6 -8h3l-6 8z",
  };
  const colours = { done: "sent", waiting: "muted", retried: "retry" };
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", shapes[kind]);
  path.setAttribute("fill", `var(--${colours[kind] ?? kind})`);
  svg.append(path);
  return svg;
}

function legend() {
  const counts = { retried: transfers.filter((record) => record.retries).length };
  for (const record of lists.flat()) counts[record.kind] = (counts[record.kind] ?? 0) + 1;
  const names = { ...Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, KINDS[kind].one])), retried: "retried" };
  const kinds = Object.keys(names).filter((kind) => counts[kind]);
  // Nobody could release a button that is gone.
  for (const kind of wanted.kinds) if (!kinds.includes(kind)) wanted.kinds.delete(kind);
  const before = [...$("legend").children].map((button) => button.dataset.kind);
  if (before.join() === kinds.join()) return;
  $("legend").replaceChildren(...kinds.map((kind) => {
    const button = make("button");
    button.type = "button";
    button.dataset.kind = kind;
    button.setAttribute("aria-pressed", String(wanted.kinds.has(kind)));
    button.append(swatch(kind), make("span", "", names[kind]));
    button.addEventListener("click", () => {
      if (!wanted.kinds.delete(kind)) wanted.kinds.add(kind);
      button.setAttribute("aria-pressed", String(wanted.kinds.has(kind)));
      refilter();
    });
    return button;
  }));
}

function refilter() {
  const words = $("search").value.toLowerCase().match(/"[^"]*"?|[^\s"]+/g) ?? [];
  wanted.words = words.map((word) => word.replaceAll('"', "")).filter(Boolean);
  transferTable.refresh();
  imageTable.refresh();
  timeline.redraw();
  counts();
}

function counts() {
  const of = (part, whole) => (part === whole ? count(whole) : `${count(part)} of ${count(whole)}`);
  $("image-count").textContent = of(imageTable.length, images.length);
  $("transfer-count").textContent = of(transferTable.length, transfers.length);
  $("found").textContent = filtered()
    ? `${several(imageTable.length, "image")}, ${several(transferTable.length, "transfer")}`
    : "";
}

let pending = 0;
$("search").addEventListener("input", () => {
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(refilter);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && document.activeElement !== $("search")) {
    event.preventDefault();
    $("search").focus();
  }
});

function footer() {
  const { totals } = report;
  const notes = [];
  const omitted = (n, noun) => `${several(n, noun)} of this run ${n === 1 ? "is" : "are"} not listed: the tables keep those that failed, were retried or took longest. Totals and throughput include all.`;
  if (totals.droppedTransfers) notes.push(omitted(totals.droppedTransfers, "transfer"));
  if (totals.droppedImages) notes.push(omitted(totals.droppedImages, "image"));
  notes.push("A bar begins when a worker starts a blob and ends when the blob is verified at its destination. Throughput counts bytes that were sent again each time.");
  $("footer").textContent = notes.join(" ");
}

new ResizeObserver(() => timeline.redraw()).observe($("stage"));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.recolour());
