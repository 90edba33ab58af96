// Sort by a heading, filter rows by a word, show what a point of a chart says. The page is complete without it.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const value = (row, column) => {
    const cell = row.cells[column];
    const number = parseFloat(cell.dataset.value);
    return Number.isNaN(number) ? cell.textContent.trim().toLowerCase() : number;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead th").forEach((heading, column) => {
      if (!heading.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") !== "descending";
        table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((one, other) => {
          const a = value(one, column), b = value(other, column);
          return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1);
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
  for (const input of document.querySelectorAll(".filter input")) {
    input.addEventListener("input", () => {
      const word = input.value.toLowerCase();
      const table = document.getElementById(input.getAttribute("aria-controls"));
      for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(word);
    });
  }
  const tip = document.getElementById("tip");
  const says = (target) => target.closest && target.closest(".chart [aria-roledescription]");
  document.addEventListener("mouseover", (event) => {
    const point = says(event.target);
    const text = point && point.tagName === "path" && point.getAttribute("aria-label");
    if (!text) return;
    tip.textContent = text;
    tip.style.display = "block";
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 16}px`;
  });
  document.addEventListener("mouseout", (event) => { if (says(event.target)) tip.style.display = "none"; });
})();
