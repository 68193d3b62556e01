"use strict";
// What htmx does not do: tabs, keys, dropped pictures, and the page without a server.
(() => {
  const offline = document.documentElement.dataset.offline === "yes";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const filter = byId("filter");
  let page = 0;

  function showTab(id) {
    for (const tab of all('[role="tab"]')) {
      const chosen = tab.id === id;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      const panel = byId(tab.getAttribute("aria-controls"));
      if (panel) panel.hidden = !chosen;
    }
  }

  function openRow(row) {
    if (!offline) return htmx.ajax("GET", `row/${row}`, { target: "#row", swap: "innerHTML" });
    const template = byId(`row-${row}`);
    if (!template) return;
    byId("row").replaceChildren(template.content.cloneNode(true));
    afterRow(row);
  }

  function afterRow(row) {
    const panel = byId("row");
    for (const each of all(".card, .map circle")) each.classList.toggle("open", each.dataset.row === String(row));
    panel.scrollTop = 0;
    if (window.innerWidth <= 820) panel.scrollIntoView();
  }

  // Of an expert: whether its button is pressed decides whether its sentence is shown.
  function showHad(button) {
    const shown = button.getAttribute("aria-pressed") !== "true";
    const panel = button.closest(".panel");
    for (const each of all(".had", panel)) each.setAttribute("aria-pressed", each === button && shown);
    const name = `${button.dataset.gate} ${button.dataset.expert}`;
    for (const each of all("[data-had]", panel)) each.hidden = !(shown && each.dataset.had === name);
  }

  function clearFilter() {
    for (const field of all("select, input", filter)) field.value = field.name === "order" ? "row" : "";
  }

  function showRowsOf(group, expert) {
    clearFilter();
    if (filter.elements.group) filter.elements.group.value = group;
    if (filter.elements.expert) filter.elements.expert.value = expert;
    showTab("tab-rows");
    applyFilter();
  }

  function applyFilter() {
    if (!offline) return htmx.trigger(filter, "filter");
    page = 0;
    drawRows();
  }

  function fillForm(cells) {
    const form = byId("ask");
    for (const [name, value] of Object.entries(cells)) {
      const field = form.elements[`column ${name}`];
      if (field) field.value = value;
    }
    if (form.elements.numbers) form.elements.numbers.value = Object.values(cells).join(" ");
    showTab("tab-ask");
    form.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("click", (event) => {
    const tab = event.target.closest('[role="tab"]');
    if (tab) return showTab(tab.id);
    const had = event.target.closest(".had");
    if (had) return showHad(had);
    const fill = event.target.closest("[data-fill]");
    if (fill) return fillForm(JSON.parse(fill.dataset.fill));
    const cell = event.target.closest("button[data-expert]");
    if (cell) return showRowsOf(cell.dataset.group, cell.dataset.expert);
    const point = event.target.closest("circle[data-row]");
    if (point) return openRow(point.dataset.row);
    const card = event.target.closest(".card");
    if (card && offline) {
      event.preventDefault();
      openRow(card.dataset.row);
    }
    const step = event.target.closest("[data-step]");
    if (step) {
      page += Number(step.dataset.step);
      drawRows();
      byId("rows").scrollIntoView({ block: "start" });
    }
  });

  // Arrow keys: between tabs, and between the rows of a page.
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const from = document.activeElement;
    if (!step || !from || event.ctrlKey || event.metaKey || event.altKey) return;
    const kind = from.matches('[role="tab"]') ? '[role="tab"]' : from.matches(".card") ? ".card" : null;
    if (!kind) return;
    const list = all(kind).filter((each) => each.offsetParent !== null);
    const next = list[list.indexOf(from) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
    if (kind === '[role="tab"]') showTab(next.id);
  });

  filter.addEventListener("reset", (event) => {
    event.preventDefault();
    clearFilter();
    applyFilter();
  });
  filter.addEventListener("submit", (event) => event.preventDefault());

  const gate = byId("gate");
  if (gate) gate.addEventListener("change", () => {
    const number = gate.selectedIndex;
    const query = new URLSearchParams({ gate: gate.value });
    if (offline) {
      const open = all('[role="tab"][aria-selected="true"]')[0];
      byId("views").replaceChildren(byId(`views-${number}`).content.cloneNode(true));
      byId("filter").elements.expert.replaceChildren(byId(`experts-${number}`).content.cloneNode(true));
      showTab(open.id);
      applyFilter();
    } else window.location.search = query;
  });

  if (!offline) {
    document.body.addEventListener("htmx:afterSwap", (event) => {
      if (event.detail.target.id !== "row") return;
      const address = event.detail.pathInfo.requestPath;
      afterRow(address.startsWith("row/") ? address.slice(4) : "");
    });
    document.body.addEventListener("htmx:sendError", () => {
      byId("row").textContent = "The explorer has ended: start `moebius serve` again.";
    });
    const form = byId("ask");
    const picture = form && form.elements.picture;
    if (picture) {
      const drop = byId("drop");
      picture.addEventListener("change", () => { if (picture.files.length) form.requestSubmit(); });
      document.addEventListener("dragover", (event) => { event.preventDefault(); drop.hidden = false; });
      document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.hidden = true; });
      document.addEventListener("drop", (event) => {
        event.preventDefault();
        drop.hidden = true;
        if (!event.dataTransfer.files.length) return;
        picture.files = event.dataTransfer.files;
        form.requestSubmit();
      });
    }
    return;
  }

  // Without a server: the cards of all rows are on the page, and carry what they are filtered by.
  const SIZE = 60;
  const cards = all("#rows .cards > li");
  const list = cards.length ? cards[0].parentElement : null;
  const ORDERS = {
    "row": ["row", 1], "largest loss": ["loss", -1], "smallest loss": ["loss", 1], "largest regret": ["regret", -1],
    "least confident": ["confidence", 1], "most confident": ["confidence", -1], "largest error": ["error", -1],
  };

  function drawRows() {
    const fields = Object.fromEntries(new FormData(filter));
    const index = gate ? gate.selectedIndex : 0;
    const number = (card, name) => (card.dataset[name] === "" ? NaN : Number(card.dataset[name]));
    const atLeast = (card, name, least) => !least || number(card, name) >= Number(least);
    const matches = cards.filter((line) => {
      const card = line.firstElementChild;
      return (!fields.group || card.dataset.group === fields.group)
        && (!fields.domain || card.dataset.domain === fields.domain)
        && (!fields.expert || card.dataset.tops.split(" ")[index] === fields.expert)
        && (!fields.answer || card.dataset.right === (fields.answer === "right" ? "1" : "0"))
        && atLeast(card, "confidence", fields.confidence_from)
        && (!fields.confidence_to || number(card, "confidence") <= Number(fields.confidence_to))
        && atLeast(card, "loss", fields.loss_from) && atLeast(card, "error", fields.error_from)
        && atLeast(card, "regret", fields.regret_from);
    });
    const [name, sign] = ORDERS[fields.order] || ORDERS.row;
    const key = (line) => { const value = number(line.firstElementChild, name); return Number.isNaN(value) ? Infinity : sign * value; };
    matches.sort((a, b) => key(a) - key(b));
    const last = Math.max(Math.ceil(matches.length / SIZE) - 1, 0);
    page = Math.min(Math.max(page, 0), last);
    list.replaceChildren(...matches.slice(page * SIZE, (page + 1) * SIZE));
    all(".matches")[0].textContent = `${matches.length} of ${cards.length} rows`;
    const pager = all(".pager")[0];
    pager.hidden = last === 0;
    pager.children[0].disabled = page === 0;
    pager.children[1].textContent = `page ${page + 1} of ${last + 1}`;
    pager.children[2].disabled = page === last;
  }

  filter.addEventListener("change", applyFilter);
  if (list) drawRows();
})();
