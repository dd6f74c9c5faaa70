// Fold long signatures after their first twelve lines: the section "Parameters" below has the full list.
document.addEventListener("DOMContentLoaded", () => {
  for (const list of document.querySelectorAll("dt.sig > dl")) {
    const entries = [...list.querySelectorAll(":scope > dd")];
    const hidden = entries.slice(12);
    if (hidden.length < 3) continue;
    const button = document.createElement("button");
    button.className = "sktl-fold";
    button.type = "button";
    button.textContent = `show ${hidden.length} more parameters`;
    hidden.forEach((entry) => (entry.hidden = true));
    button.addEventListener("click", () => {
      hidden.forEach((entry) => (entry.hidden = false));
      button.remove();
    });
    const row = document.createElement("dd");
    row.append(button);
    list.append(row);
  }
});
