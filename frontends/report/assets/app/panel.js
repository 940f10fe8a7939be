// The panel: everything known about what is selected.

const reference = (key, text) => element("button", { class: "link", type: "button", onclick: () => go(key) }, text);

function opLink(id, stage) {
  const node = stage.nodes.get(id);
  const op = data.ops[id];
  return reference(`op:${id}`, `${node ? node.name + " " : ""}${op.label && op.kind === "input" ? "input" : op.op}`);
}

function section(title, ...content) {
  return [element("h3", {}, title), ...content];
}

function facts(rows) {
  return element("dl", { class: "facts" }, rows.filter(([, value]) => value !== null && value !== undefined && value !== "" && !(Array.isArray(value) && !value.length))
    .flatMap(([name, value, kind]) => [element("dt", {}, name), element("dd", { class: kind || "" }, value)]));
}

function heading(title, subtitle) {
  const wide = document.body.classList.contains("wide");
  return element("header", {},
    element("div", {}, element("h2", { tabindex: -1 }, title), subtitle ? element("p", { class: "doc" }, subtitle) : null),
    element("button", { class: "plain", type: "button", onclick: () => { document.body.classList.toggle("wide"); showPanel(); drawMemory(); } }, wide ? "Narrow" : "Widen"));
}

function sourceBlock(k) {
  if (k === null || k === undefined) return [];
  const { file, line } = data.locs[k];
  const lines = data.sources[file] || {};
  const numbers = Object.keys(lines).map(Number).filter((n) => Math.abs(n - line) <= 2).sort((a, b) => a - b);
  const text = reference(`l:${k}`, lineText(k));
  if (!numbers.length) return section("Source", element("p", {}, text));
  return section("Source", element("p", {}, text), element("div", { class: "code source" },
    numbers.flatMap((n) => [element("span", { class: n === line ? "here" : "" }, String(n)), element("span", { class: n === line ? "here" : "" }, lines[n] || " ")])));
}

// --- code ----------------------------------------------------------------------------------------

const STAGE_NAMES = { loops: "Loops", llvm: "LLVM", asm: "Assembly", cuda: "CUDA", ptx: "PTX" };
const WORDS = {
  loops: /\b(?:kernel|in|out|inout|for|parallel|vector|unroll|block|thread|serial|alloc|store|load|let|if|else|reduce|register|local|shared|workspace|select|fma)\b/,
  llvm: /\b(?:define|declare|internal|private|ret|br|switch|phi|load|store|call|tail|getelementptr|inbounds|add|sub|mul|fadd|fsub|fmul|fdiv|icmp|fcmp|select|bitcast|zext|sext|trunc|sitofp|fptosi|extractelement|insertelement|shufflevector|label|to|nuw|nsw|align)\b/,
  cuda: /\b(?:def|for|in|range|if|else|elif|return|import|from|while|and|or|not)\b/,
};
const COMMENT = { loops: /^\s*\/\/.*/, llvm: /;.*/, asm: /#.*/, cuda: /#.*/, ptx: /\/\/.*/ };

function coloured(text, stage) {
  if (text.length > 150000) return [text];
  const word = WORDS[stage] || /^\s+[a-z][\w.]*/m;
  const pattern = new RegExp(`(${COMMENT[stage].source})|([%@$][\\w.]+)|(${word.source})|(-?\\b(?:0x[0-9A-Fa-f]+|\\d+(?:\\.\\d+)?(?:e[+-]?\\d+)?)\\b)`, "gm");
  const parts = [];
  let end = 0;
  for (const m of text.matchAll(pattern)) {
    parts.push(text.slice(end, m.index), element("span", { class: m[1] ? "c" : m[2] ? "v" : m[3] ? "k" : "n" }, m[0]));
    end = m.index + m[0].length;
  }
  return [...parts, text.slice(end)];
}

function codeBlock(kernel) {
  const names = Object.keys(kernel.code);
  const chosen = names.includes(state.code) ? state.code : names[0];
  const choose = (name, focus) => {
    state.code = name;
    showPanel(false);
    if (focus) document.querySelector("#panel [role=tab][aria-selected=true]").focus();
  };
  const tabs = names.map((name) => element("button", {
    type: "button", role: "tab", "aria-selected": String(name === chosen), tabindex: name === chosen ? 0 : -1, onclick: () => choose(name, true),
    onkeydown: (e) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (step) { e.preventDefault(); choose(names[(names.indexOf(name) + step + names.length) % names.length], true); }
    },
  }, STAGE_NAMES[name] || name));
  const copy = element("button", { class: "plain", type: "button", onclick: async () => {
    await navigator.clipboard.writeText(kernel.code[chosen]).then(() => { copy.textContent = "Copied"; }, () => { copy.textContent = "Copying is not allowed here"; });
  } }, "Copy");
  return [
    element("div", { class: "tabs" }, element("div", { role: "tablist", "aria-label": "Code" }, tabs), copy),
    element("pre", { class: "code", tabindex: 0, role: "tabpanel", "aria-label": STAGE_NAMES[chosen] || chosen }, coloured(kernel.code[chosen], chosen)),
  ];
}

// --- what is selected ----------------------------------------------------------------------------

function opPanel(id) {
  const op = data.ops[id];
  const seen = presence[id];
  const at = stages[state.stage].nodes.has(id) ? state.stage : seen[seen.length - 1];
  const stage = stages[at];
  const node = stage.nodes.get(id);
  const operands = node.operands.map((o) => (typeof o === "string" ? element("span", { class: "mono" }, o) : opLink(o, stage)));
  const text = `${node.name} = ${op.op} ${node.operands.map((o) => (typeof o === "string" ? o : stage.nodes.get(o).name)).join(", ")}${op.attrs ? " " + op.attrs : ""} : ${op.type}`;
  const rewired = stages.flatMap((s) => (s.marks.get(id) === "rewired" ? [s.name] : []));
  const last = seen[seen.length - 1];
  const written = (stage.writes.get(id) || []).join(", ");
  const step = op.step === null ? null : data.steps[op.step];
  return [
    heading(op.op === "input" || op.op === "state" ? op.label : op.op, op.doc),
    facts([
      ["Type", op.type, "mono"], ["Value", node.name, "mono"],
      ["Reads", operands.length ? element("div", { class: "refs" }, operands) : ""],
      ["Read by", node.users.length ? element("div", { class: "refs" }, node.users.map((u) => opLink(u, stage))) : ""],
      ["Becomes", written, "mono"],
      ["Derivative", op.of ? `part of the gradient of ${op.of}` : isBackward(op.loc) ? "part of the gradient" : ""],
      ["Made by", seen[0] ? stages[seen[0]].name : "the declaration"],
      ["Rewired by", rewired.join(", ")],
      ["Removed by", last < stages.length - 1 ? stages[last + 1].name : ""],
      ["Kernel", step ? reference(`k:${op.step}`, data.kernels[step.kernel].name) : ""],
    ]),
    ...section(at === state.stage ? "IR" : `IR, as it was after ${stage.name}`, element("pre", { class: "code wrap" }, coloured(text.replace(/ +/g, " "), "loops"))),
    ...sourceBlock(op.loc),
    ...(step ? codeBlock(data.kernels[step.kernel]) : []),
  ];
}

function kernelPanel(k) {
  const step = data.steps[k];
  const kernel = data.kernels[step.kernel];
  const time = timing.get(kernel.name);
  const stage = stages[stages.length - 1];
  const buffers = (names) => names.map((n) => { const b = bufferNamed(n); return element("span", { class: "mono" }, b ? `${n}: ${b.type}` : n); });
  return [
    heading(kernel.name, `Kernel ${k + 1} of ${data.steps.length}: ${step.reason}`),
    facts([
      ["Lines", step.locs.length ? element("div", { class: "refs" }, step.locs.map((l) => reference(`l:${l}`, lineText(l)))) : ""],
      ["Reads", step.reads.length ? element("div", { class: "refs" }, buffers(step.reads)) : ""],
      ["Writes", element("div", { class: "refs" }, buffers(step.writes))],
      ["Ops", step.ops.length ? element("div", { class: "refs" }, step.ops.map((id) => opLink(id, stage))) : ""],
      ["Time", time ? duration(time.seconds / (time.calls || 1)) + " per call" : ""],
    ]),
    ...sourceBlock(step.locs[0]),
    ...codeBlock(kernel),
  ];
}

function linePanel(k) {
  const stage = stages[state.stage];
  const ids = [...stage.nodes.keys()].filter((id) => data.ops[id].loc === k);
  const steps = data.steps.flatMap((s, n) => (s.locs.includes(k) ? [n] : []));
  return [
    heading(lineText(k), isBackward(k) ? "What differentiation made of this line." : "A line of the program."),
    ...sourceBlock(k),
    facts([
      ["Kernels", element("div", { class: "refs" }, steps.map((n) => reference(`k:${n}`, data.kernels[data.steps[n].kernel].name)))],
      [`Ops after ${stage.name}`, element("div", { class: "refs" }, ids.map((id) => opLink(id, stage)))],
    ]),
  ];
}

function overview() {
  const last = stages[stages.length - 1];
  const arena = data.memory ? `${bytes(evaluate(data.memory.arena.tree, state.dims))}${dimsText()}` : "";
  return [
    heading(data.name, "Select an op or a kernel to see what became of it."),
    facts([
      ["Target", data.target], ["Ops", `${grouped(stages[0].nodes.size)} as written, ${grouped(last.nodes.size)} after ${last.name}`],
      ["Kernels", data.steps.length ? `${grouped(data.kernels.length)}, called ${plural(data.steps.length, "time")}` : ""],
      ["Scratch memory", arena], ["Formula", data.memory && data.memory.arena.text !== String(data.memory.arena.tree) ? data.memory.arena.text : "", "mono formula"],
      ["Note", data.note],
    ]),
    ...(data.steps.length ? section("Kernels in order", element("ol", {}, data.steps.map((s, k) => element("li", {},
      reference(`k:${k}`, data.kernels[s.kernel].name), element("span", { class: "muted mono" }, s.locs.length ? `  ${lineText(s.locs[0])}` : ""))))) : []),
  ];
}

const dimsText = () => (Object.keys(state.dims).length ? ` for ${Object.entries(state.dims).map(([n, v]) => `${n} = ${v}`).join(", ")}` : "");

function showPanel(top = true) {
  const panel = $("panel");
  const scroll = panel.scrollTop;
  const [kind, id] = state.selected ? [state.selected.split(":")[0], +state.selected.split(":")[1]] : ["", 0];
  panel.replaceChildren(...{ "": overview, op: opPanel, k: kernelPanel, l: linePanel }[kind](id));
  panel.setAttribute("tabindex", -1);
  panel.scrollTop = top ? 0 : scroll;
}
