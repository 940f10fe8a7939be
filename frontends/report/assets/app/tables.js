// Tables: the kernels in order, and the profile.

function plainTable(columns, rows, attributes = () => ({})) {
  const cell = (value, k) => element("td", { class: columns[k][1] || "" }, value);
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, columns.map(([name, kind]) => element("th", { scope: "col", class: kind === "number" ? kind : "" }, name)))),
    element("tbody", {}, rows.map((row, k) => element("tr", attributes(k), row.map(cell))))));
}

const lines = (locs) => element("div", {}, locs.map((l) => element("div", {}, reference(`l:${l}`, lineText(l)))));
const chosen = (k) => ({ "aria-selected": String(state.selected === `k:${k}`) });

function drawKernels() {
  if (state.view !== "kernels") return;
  const page = $("kernels");
  const scroll = page.scrollTop;
  const rows = data.steps.map((s, k) => {
    const row = [k + 1, reference(`k:${k}`, data.kernels[s.kernel].name), lines(s.locs), s.reads.join(", "), s.writes.join(", "), s.reason];
    const time = timing.get(data.kernels[s.kernel].name);
    return data.profile ? [...row, time ? duration(time.seconds / (time.calls || 1)) : ""] : row;
  });
  const columns = [["", "number"], ["Kernel", "mono keep"], ["Lines", "mono keep"], ["Reads", "mono"], ["Writes", "mono"], ["Why it is one kernel"]];
  page.replaceChildren(
    element("h2", {}, "Kernels in the order in which they run"),
    element("p", { class: "lead" }, `${plural(data.kernels.length, "kernel")}, called ${plural(data.steps.length, "time")}.`),
    plainTable(data.profile ? [...columns, ["Time", "number"]] : columns, rows, chosen));
  page.scrollTop = scroll;
}

function drawProfile() {
  if (state.view !== "profile" || !data.profile) return;
  const page = $("profile");
  const rows = [...data.profile].sort((a, b) => b.seconds - a.seconds);
  const total = rows.reduce((sum, r) => sum + r.seconds, 0) || 1;
  const most = rows.length ? rows[0].seconds || 1 : 1;
  const has = (key) => rows.some((r) => r[key] !== undefined);
  const rate = (n, seconds, unit) => (n === undefined || !seconds ? "" : scaled(n / seconds, unit));
  const columns = [["Kernel", "mono keep"], ["Lines", "mono keep"], ["Time", "number"], ["Share", "number"], [""]];
  if (has("calls")) columns.push(["Calls", "number"]);
  if (has("flops")) columns.push(["Arithmetic", "number"]);
  if (has("bytes")) columns.push(["Traffic", "number"]);
  const body = rows.map((r) => {
    const step = data.steps.findIndex((s) => data.kernels[s.kernel].name === r.kernel);
    const meter = element("span", { class: "meter" });
    meter.style.width = `${(160 * r.seconds) / most}px`;
    const row = [reference(`k:${step}`, r.kernel), lines(data.steps[step].locs), duration(r.seconds), `${((100 * r.seconds) / total).toFixed(1)} %`, meter];
    if (has("calls")) row.push(r.calls === undefined ? "" : grouped(r.calls));
    if (has("flops")) row.push(rate(r.flops, r.seconds, "flop/s"));
    if (has("bytes")) row.push(rate(r.bytes, r.seconds, "B/s"));
    return row;
  });
  page.replaceChildren(
    element("h2", {}, "Time by kernel"),
    element("p", { class: "lead" }, `${duration(total)} in ${plural(rows.length, "kernel")}.`),
    plainTable(columns, body));
}
