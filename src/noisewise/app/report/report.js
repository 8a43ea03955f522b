// Values under the pointer, pictures of the same noise over time, buttons that copy. No library, no
// network; without it the page shows the same.
"use strict";
for (const plot of document.querySelectorAll("svg[data-hover]")) {
  const lines = JSON.parse(plot.dataset.hover);
  const box = plot.parentElement;
  const tip = box.appendChild(document.createElement("div"));
  tip.className = "tip";
  const dot = plot.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "circle"));
  dot.setAttribute("r", "4");
  dot.setAttribute("fill", "var(--accent)");
  dot.setAttribute("visibility", "hidden");
  plot.addEventListener("pointermove", (event) => {
    const area = plot.getBoundingClientRect();
    const scale = plot.viewBox.baseVal.width / area.width;
    const x = (event.clientX - area.left) * scale;
    const y = (event.clientY - area.top) * scale;
    let best = null;
    for (const line of lines)
      for (const [px, py, vx, vy] of line.points) {
        const far = (px - x) ** 2 + 0.2 * (py - y) ** 2;
        if (best === null || far < best.far) best = { far, px, py, vx, vy, name: line.name };
      }
    if (best === null) return;
    dot.setAttribute("cx", best.px);
    dot.setAttribute("cy", best.py);
    dot.setAttribute("visibility", "visible");
    tip.textContent = `${best.name}: ${best.vy} at ${best.vx}`;
    tip.style.display = "block";
    const left = best.px / scale + 8;
    tip.style.left = `${Math.max(0, Math.min(left, area.width - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, best.py / scale - 30)}px`;
  });
  plot.addEventListener("pointerleave", () => {
    tip.style.display = "none";
    dot.setAttribute("visibility", "hidden");
  });
}
for (const film of document.querySelectorAll(".film")) {
  film.classList.add("live");
  const frames = [...film.querySelectorAll(".frame img")];
  const [time, seed] = film.querySelectorAll("input");
  const [when, which] = film.querySelectorAll("output");
  const zoom = film.querySelector(".zoom");
  const columns = Number(film.dataset.columns);
  const rows = Number(film.dataset.rows);
  const show = () => {
    const now = frames[Number(time.value)];
    for (const frame of frames) frame.parentElement.classList.toggle("on", frame === now);
    when.textContent = now.dataset.when;
    const cell = Number(seed.value);
    which.textContent = `picture ${cell + 1} of ${columns * rows}`;
    const share = (index, count) => (count > 1 ? (100 * index) / (count - 1) : 0);
    zoom.style.backgroundImage = `url(${now.src})`;
    zoom.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
    zoom.style.backgroundPosition =
      `${share(cell % columns, columns)}% ${share(Math.floor(cell / columns), rows)}%`;
  };
  film.querySelector(".frame").addEventListener("click", (event) => {
    const area = event.currentTarget.getBoundingClientRect();
    const column = Math.floor((columns * (event.clientX - area.left)) / area.width);
    const row = Math.floor((rows * (event.clientY - area.top)) / area.height);
    seed.value = String(row * columns + column);
    show();
  });
  time.addEventListener("input", show);
  seed.addEventListener("input", show);
  show();
}
for (const block of document.querySelectorAll(".code")) {
  const text = block.querySelector("pre");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text); // the reader copies it
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  block.append(button);
}
