"""How the report looks: readable on a phone and on paper, nothing loaded from anywhere."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f4f5f7; color: #1c2330;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1rem 0; }
h2 { font-size: 1.1rem; margin: 0 0 .6rem; }
section { background: #fff; border: 1px solid #e3e6ea; border-radius: 10px; padding: 1rem; margin: 0 0 1rem; }
.honesty { border-left: 4px solid #e69f00; background: #fff8e6; border-radius: 0 8px 8px 0;
  padding: .7rem 1rem; margin: 0 0 1rem; }
figure { margin: 0 0 .8rem; }
figure svg { width: 100%; max-width: 42rem; margin: 0 auto; height: auto; display: block; }
figcaption { color: #5a6473; font-size: .85rem; }
.wide { overflow-x: auto; margin-bottom: .8rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0;
  border-bottom: 1px solid #e9ecf0; }
th { color: #5a6473; font-weight: 600; }
pre { background: #f4f5f7; border-radius: 8px; padding: .8rem; margin: .3rem 0; font-size: .82rem;
  overflow-x: auto; }
.sample { white-space: pre-wrap; overflow-wrap: anywhere; }
.choice > div { display: none; margin-top: .5rem; }
#linear:checked ~ .if-linear, #logarithmic:checked ~ .if-logarithmic { display: block; }
.choice label { margin: 0 1rem 0 .3rem; font-size: .9rem; }
.events td:first-child { white-space: nowrap; }
.events td:last-child { min-width: 13rem; }
summary { cursor: pointer; padding: .35rem 0; }
@media (max-width: 30rem) { main { padding: .5rem; } section { padding: .7rem; } }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
