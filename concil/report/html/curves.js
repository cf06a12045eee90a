// The curves above the timeline: values of the whole run in buckets of time.

const throughput = {
  colour: "rate",
  name: (most) => `${size(most).replace(".0 ", " ")}/s`,

  // The mean rate between two times; buckets count in proportion to their overlap.
  between(from, to) {
    const { bucketWidth: width, bytes } = report.throughput;
    const [start, stop] = [Math.max(0, from), Math.max(0.001, to)];
    let sum = 0;
    for (let n = Math.floor(start / width); n < bytes.length && n * width < stop; n += 1) {
      const part = Math.min(stop, (n + 1) * width) - Math.max(start, n * width);
      sum += (bytes[n] * Math.max(0, part)) / width;
    }
    return (sum * 1000) / (stop - start);
  },

  // The next round number, for the scale.
  nice(most) {
    const unit = 1024 ** Math.floor(Math.log(Math.max(1, most)) / Math.log(1024));
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1024].find((n) => n * unit >= most) ?? 1024;
    return step * unit;
  },
};

const queue = {
  colour: "queue",
  name: (most) => `${count(most)} waiting`,

  // The maximum between two times.
  between(from, to) {
    const { bucketWidth: width, maximum } = report.queueDepth;
    const first = Math.max(0, Math.floor(from / width));
    const last = Math.max(first + 1, Math.ceil(to / width));
    return Math.max(0, ...maximum.slice(first, last));
  },

  nice: (most) => Math.max(1, most),
};
