// Light or dark, as it was chosen on the page; where nothing was chosen, the stylesheet follows the system.

function setScheme() {
  const dark = localStorage.getItem("tuning-fork-dark");
  if (dark === null) delete document.documentElement.dataset.scheme;
  else document.documentElement.dataset.scheme = dark === "yes" ? "dark" : "light";
}

setScheme();
addEventListener("storage", setScheme); // the page in another tab was switched
