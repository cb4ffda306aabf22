
"use strict";
// Before anything is drawn: the theme that was chosen last, and that scripts run.
document.documentElement.classList.add("script");
try {
  const chosen = localStorage.getItem("implicit_l2o-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* a browser may refuse storage to a local file */ }
