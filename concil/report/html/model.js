// Transfers and images as objects, made from the columns of the report, and the search over them.

let report = JSON.parse($("data").textContent);
let RUN = Math.max(1, report.milliseconds);

// How a transfer (`one`) or an image ended, in words.
const KINDS = {
  done: { one: "sent", image: "copied" },
  mounted: { one: "mounted", image: "mounted" },
  present: { one: "already present", image: "up to date" },
  failed: { one: "failed", image: "failed" },
  running: { one: "running", image: "running" },
  unfinished: { one: "unfinished", image: "unfinished" },
  waiting: { one: "not started", image: "not started" },
};

function kindOf(state) {
  if (state in KINDS) return state;
  return report.isRunning ? "running" : "unfinished";
}

const readLanes = (names) => names.map((name) => plain(name.replace("worker-", "worker ")));
let lanes = readLanes(report.lanes);

function readTransfers(columns, strings) {
  const text = (n) => plain(strings[n]);
  return columns.digest.map((digest, n) => {
    const [queued, started, ended] = [columns.queued[n], columns.started[n], columns.ended[n]];
    // Of a blob that was already present only the end is known.
    const begin = started ?? ended;
    const end = ended ?? RUN;
    const kind = kindOf(columns.state[n]);
    return {
      n, kind, queued, started, ended, begin, end,
      digest: plain(digest),
      short: shortDigest(digest),
      target: text(columns.target[n]),
      total: columns.total[n],
      position: columns.position[n],
      resumeOffset: columns.resumeOffset[n],
      lane: columns.lane[n],
      instant: started === null,
      waited: begin === null ? RUN - queued : begin - queued,
      took: started === null ? null : end - started,
      retries: columns.retries[n],
      interruptions: (columns.interruptions[n] ?? []).map(([lane, at, until, detail]) => (
        { lane, at, until: until ?? end, isOpen: until === null, detail: text(detail) }
      )),
      helpers: (columns.helpers[n] ?? []).map(([lane, from, to]) => ({ lane, from, to })),
      detail: n in columns.detail ? text(columns.detail[n]) : "",
    };
  });
}

function readImages(columns, strings) {
  return columns.source.map((source, n) => {
    const [started, ended] = [columns.started[n], columns.ended[n]];
    return {
      n,
      kind: kindOf(columns.state[n]),
      started,
      isEnded: ended !== null,
      source: plain(source),
      target: plain(columns.target[n]),
      sent: columns.sent[n],
      ended: ended ?? RUN,
      took: started === null ? null : (ended ?? RUN) - started,
      detail: n in columns.detail ? plain(strings[columns.detail[n]]) : "",
      retries: 0,
    };
  });
}

const transfers = readTransfers(report.transfers, report.strings);
const images = readImages(report.images, report.strings);
const lists = [transfers, images]; // what the buttons of the legend select from

function rateOf(transfer) {
  const moved = transfer.kind === "done" ? transfer.total - transfer.resumeOffset : transfer.position - transfer.resumeOffset;
  return transfer.took > 0 && moved > 0 ? (moved * 1000) / transfer.took : null;
}

function stateOf(transfer) {
  return KINDS[transfer.kind].one;
}

// ---- search ----

// The searched text is built on first use, so that the page appears sooner.
function haystack(record) {
  if (record.hay === undefined) {
    const words = "source" in record
      ? [record.source, record.target, KINDS[record.kind].image, record.detail]
      : [record.digest, record.target, stateOf(record), lanes[record.lane] ?? "", record.detail,
        ...record.interruptions.map((interruption) => interruption.detail), record.retries ? "retried" : ""];
    record.hay = words.join("\n").toLowerCase();
  }
  return record.hay;
}

const wanted = { words: [], kinds: new Set() };

function matches(record) {
  if (wanted.kinds.size) {
    const isRetried = wanted.kinds.has("retried") && record.retries > 0;
    if (!isRetried && !wanted.kinds.has(record.kind)) return false;
  }
  return !wanted.words.length || wanted.words.every((word) => haystack(record).includes(word));
}

function filtered() {
  return wanted.words.length > 0 || wanted.kinds.size > 0;
}
