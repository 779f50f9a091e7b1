// The browser of samples. Model output is untrusted: it reaches the page through textContent only.
(() => {
  const block = document.getElementById("samples-data");
  if (!block) return;
  const { baseline, treatments, unit, rows } = JSON.parse(block.textContent);
  const list = document.getElementById("samples-list");
  const found = document.getElementById("samples-found");
  const search = document.getElementById("samples-search");
  const against = document.getElementById("samples-against");
  const more = document.getElementById("more");
  const chips = [...document.querySelectorAll("[data-outcome]")];
  const PAGE = 10;
  let chosen = "all", hits = [], shown = 0;

  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined && text !== null) node.textContent = text;
    return node;
  };
  const valueOf = (row, arm) => (row.a.find((answer) => answer[0] === arm) || [])[2];
  const outcome = (row, arm) => {
    const before = valueOf(row, baseline), after = valueOf(row, arm);
    if (![0, 1].includes(before) || ![0, 1].includes(after)) return "unclear";
    return before ? (after ? "both right" : "broken") : (after ? "fixed" : "both wrong");
  };
  for (const row of rows) {
    row.text = [row.q, row.gold, row.id, ...row.a.map((answer) => answer[1])].join("\n").toLowerCase();
  }
  const verdictOf = (value, finish) => {
    const cut = finish === "length" ? ", cut at the limit" : finish === "error" ? ", no answer" : "";
    if (value === null) return "not scored" + cut;
    if (unit === "share" && value === 1) return "right" + cut;
    if (unit === "share" && value === 0) return "wrong" + cut;
    return String(Math.round(value * 1000) / 1000) + cut;
  };
  const draw = (row) => {
    const item = element("article", "sample");
    item.append(element("h3", "", row.q));
    const meta = [outcome(row, against.value)];
    if (row.gold !== null) meta.push("gold answer: " + row.gold);
    item.append(element("p", "meta", meta.join("  ·  ")));
    const answers = element("div", "answers");
    for (const [arm, text, value, detail, finish, tokens] of row.a) {
      const plain = unit === "share" && (value === 0 || value === 1);
      const box = element("div", "answer" + (plain ? (value ? " right" : " wrong") : ""));
      const head = element("header");
      head.append(element("b", "", arm), element("span", "", verdictOf(value, finish)));
      const body = element("pre", "", text === null ? "(no answer)" : text);
      body.tabIndex = 0;
      body.setAttribute("aria-label", "Answer of " + arm);
      box.title = [detail && "seen: " + detail, tokens !== null && tokens + " tokens"].filter(Boolean).join(", ");
      box.append(head, body);
      answers.append(box);
    }
    item.append(answers);
    return item;
  };
  const next = () => {
    list.append(...hits.slice(shown, shown + PAGE).map(draw));
    shown = Math.min(shown + PAGE, hits.length);
    more.hidden = shown >= hits.length;
    more.textContent = "Show " + Math.min(PAGE, hits.length - shown) + " more";
    found.textContent = hits.length ? shown + " of " + hits.length + " problems" : "No problem matches.";
  };
  const update = () => {
    const words = search.value.trim().toLowerCase();
    const matching = rows.filter((row) => !words || row.text.includes(words));
    const counts = { all: matching.length };
    for (const row of matching) {
      const kind = outcome(row, against.value);
      counts[kind] = (counts[kind] || 0) + 1;
    }
    for (const chip of chips) {
      chip.setAttribute("aria-pressed", String(chip.dataset.outcome === chosen));
      chip.querySelector("span").textContent = counts[chip.dataset.outcome] || 0;
    }
    hits = matching.filter((row) => chosen === "all" || outcome(row, against.value) === chosen);
    list.replaceChildren();
    shown = 0;
    next();
  };
  for (const arm of treatments) against.append(new Option(arm, arm));
  against.closest("label").hidden = treatments.length < 2;
  for (const chip of chips) chip.addEventListener("click", () => { chosen = chip.dataset.outcome; update(); });
  let timer;
  search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(update, 80); });
  against.addEventListener("change", update);
  more.addEventListener("click", next);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      search.focus();
    }
  });
  update();
})();
