"""The page's style sheet: one column, system fonts, light and dark, nothing fetched."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1d2129; --soft: #5c6370; --rule: #e3e1dc;
  --blue: #2563a8; --band: #2563a82e; --grey: #8a8f98; --red: #c2410c; --green: #177245; --bar: #dbe7f3; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15171b; --card: #1d2025; --ink: #e7e6e3; --soft: #a2a8b3; --rule: #32363d;
  --blue: #7fb2e8; --band: #7fb2e833; --grey: #8d929c; --red: #ff8a5c; --green: #6fcf9a; --bar: #2b3a4b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 22px; margin: 48px 0 8px; }
h3 { font-size: 18px; margin: 0; overflow-wrap: anywhere; }
h4 { font-size: 15px; margin: 20px 0 4px; }
p { margin: 4px 0 12px; max-width: 72ch; }
.lead { font-size: 18px; color: var(--soft); }
.soft, .note, figcaption, footer { color: var(--soft); }
.note, figcaption, footer { font-size: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 16px; margin: 28px 0 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 16px 18px; }
.tile b { display: block; font-size: 30px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: 14px; color: var(--soft); margin-top: 4px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.card { margin: 16px 0; padding: 20px 22px; }
.head { display: flex; flex-wrap: wrap; gap: 4px 16px; justify-content: space-between; align-items: baseline; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 15px; }
th { text-align: left; font-weight: 600; font-size: 13px; color: var(--soft); vertical-align: bottom; }
th, td { padding: 8px 14px 8px 0; border-bottom: 1px solid var(--rule); }
td { vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
td:first-child { overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 13.5px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
.runs { display: block; letter-spacing: 1px; }
.good { color: var(--green); font-weight: 600; } .bad { color: var(--red); font-weight: 600; }
.meter { display: block; height: 6px; border-radius: 3px; background: var(--bar); margin-top: 5px; min-width: 60px; }
.meter i { display: block; height: 6px; border-radius: 3px; background: var(--blue); }
.meter.grey i { background: var(--grey); }
.small { font-size: 14px; }
.why { color: var(--soft); font-size: 14px; } .why div { padding-left: 14px; text-indent: -14px; }
figure { margin: 14px 0 0; }
.strip { position: relative; height: 220px; margin: 8px 0 0 84px; }
.strip svg { width: 100%; height: 100%; display: block; overflow: visible; }
.times span { position: absolute; right: calc(100% + 8px); transform: translateY(50%); font-size: 13px;
  color: var(--soft); white-space: nowrap; font-variant-numeric: tabular-nums; }
.numbers { display: flex; justify-content: space-between; margin: 8px 0 0 84px; font-size: 13px; color: var(--soft); }
svg path { fill: none; vector-effect: non-scaling-stroke; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .band { fill: var(--band); }
svg .expected { stroke: var(--blue); stroke-width: 2; }
svg .jenkins { stroke: var(--grey); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .passed { stroke: var(--ink); stroke-width: 5; stroke-linecap: round; }
svg .failed { stroke: var(--red); stroke-width: 7; stroke-linecap: round; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 22px; font-size: 14px;
  color: var(--soft); padding: 0; margin: 12px 0; }
.legend li { list-style: none; display: flex; align-items: center; gap: 8px; }
.legend svg { width: 30px; height: 12px; flex: none; }
details { margin-top: 12px; font-size: 15px; } summary { cursor: pointer; color: var(--blue); font-size: 14px; }
footer { margin-top: 48px; border-top: 1px solid var(--rule); padding-top: 14px; }
@media (max-width: 640px) {
  main { padding: 24px 14px 40px; } h1 { font-size: 26px; } .card { padding: 16px 14px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 10px; } .tile { padding: 12px; } .tile b { font-size: 24px; }
  .strip { height: 160px; margin-left: 72px; } .numbers { margin-left: 72px; }
  table.tests, table.tests tbody, table.tests tr, table.tests td { display: block; }
  table.tests thead { display: none; } table.tests td { border: 0; padding: 2px 0; text-align: left; }
  table.tests tr { border-bottom: 1px solid var(--rule); padding: 10px 0; } table.tests tr:last-child { border: 0; }
}
"""
