"""What `report.html` is around its body: style, and a script that sorts tables. The page asks nothing of anybody."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name}: teachercache report</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
<script>
{script}</script>
</body>
</html>
"""

# The page fits a window of 1,300 pixels: texts in tables wrap, and a table that is wider still scrolls in its own box.
STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 84em; margin: 2em auto; padding: 0 1em; color: #222;
  overflow-wrap: anywhere; }
p, ul, figcaption { max-width: 60em; }
code { font-size: .92em; background: #f2f2f2; border-radius: 3px; padding: .05em .25em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .35em .5em; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th { vertical-align: bottom; overflow-wrap: normal; }
td { unicode-bidi: plaintext; white-space: nowrap; }
:is(th, td):first-child, .texts-2 :is(th, td):nth-child(2), .texts-3 :is(th, td):nth-child(-n+3) { text-align: left; }
td:first-child, .texts-2 td:nth-child(2), .texts-3 td:nth-child(-n+3) { white-space: normal; min-width: 7em; }
.quoted td:last-child { white-space: normal; }
th button { all: unset; cursor: pointer; text-decoration: underline dotted #999; text-underline-offset: .25em; }
th button:hover, th button:focus-visible { text-decoration: underline solid; }
th button:focus-visible { outline: 2px solid #36c; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
img { max-width: 100%; display: block; margin: 1.5em 0; }
figure { margin: 2.5em 0; }
figure img { margin: 0 0 .5em; }
figcaption { font-size: 13px; color: #555; }
"""

# A heading becomes a button: increasing, decreasing, then as it was. The orders stand in the table's `col` elements.
SCRIPT = """for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  table.querySelectorAll("col").forEach((column, place) => {
    const head = heads[place], button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const now = before === null ? "ascending" : before === "ascending" ? "descending" : null;
      for (const each of heads) each.removeAttribute("aria-sort");
      if (now) head.setAttribute("aria-sort", now);
      const order = now ? column.dataset[now].split(" ") : rows.keys();
      body.append(...Array.from(order, number => rows[number]));
    });
  });
}
"""
