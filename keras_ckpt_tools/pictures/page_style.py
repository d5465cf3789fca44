"""How the report page looks: a style sheet for light, dark, phones and paper.

One file, no request to anywhere: the fonts are those of the reader's system, the colours are
variables that the curves use too. All text has a contrast of 4.5 to 1 or more on its ground.
"""

from __future__ import annotations

__all__ = ["STYLE"]

_DARK = """
--ground:#11151b;--card:#181e26;--text:#e7eaf0;--soft:#a0abba;--line:#2d3541;
--accent:#79b0ff;--second:#6d93c7;--gone:#8391a3;--gold:#f3c34d;--gold-edge:#11151b;
--good:#6fd0a0;--bad:#ff9c94;--wash:#1c2836;
"""

STYLE = f"""
:root{{color-scheme:light dark;
--ground:#ffffff;--card:#f6f7f9;--text:#1a1f28;--soft:#576172;--line:#dde1e7;
--accent:#1f62c8;--second:#5585c9;--gone:#667284;--gold:#f0b400;--gold-edge:#6b4e00;
--good:#146c43;--bad:#b3261e;--wash:#eaf1fb}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%}}
body{{margin:0;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}}
main,footer{{max-width:68rem;margin:0 auto;padding:0 1.25rem}}
header{{padding:2.5rem 0 1.25rem}}
h1{{font-size:clamp(1.6rem,5vw,2.3rem);line-height:1.15;margin:0 0 .35rem;letter-spacing:-.02em;
text-wrap:balance}}
h2{{font-size:1.2rem;margin:2.75rem 0 .9rem;letter-spacing:-.01em}}
h3{{font-size:1rem;margin:0 0 .4rem}}
p{{margin:.4rem 0;max-width:65ch}}
h1,p,td,th,dd,figcaption,code{{overflow-wrap:anywhere}}
.soft,.path{{color:var(--soft)}}
code,.path{{font:.9em/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}}
.figures{{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:1px;margin:0;
background:var(--line);border:1px solid var(--line);border-radius:.6rem;overflow:hidden}}
.figures>div{{background:var(--ground);padding:.8rem 1rem}}
.figures dt{{font-size:.82rem;color:var(--soft)}}
.figures dd{{margin:0;font-size:1.35rem;font-weight:600;line-height:1.3}}
.figures small{{display:block;font-size:.82rem;font-weight:400;color:var(--soft)}}
.curves{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.25rem}}
figure{{margin:0;padding:1rem 1rem .6rem;background:var(--card);border-radius:.6rem;max-width:42rem;
min-width:0}}
figcaption{{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1rem;font-weight:600}}
figcaption span{{font-weight:400;color:var(--soft);font-size:.88rem}}
svg{{display:block;width:100%;height:auto;overflow:visible}}
.legend{{display:flex;flex-wrap:wrap;gap:.3rem 1.25rem;list-style:none;margin:0 0 .9rem;padding:0;
font-size:.9rem;color:var(--soft)}}
.legend li{{display:flex;align-items:center;gap:.45rem}}
.legend svg{{width:26px;height:14px;flex:none}}
.tick{{font-size:11.5px;fill:var(--soft)}}
.grid{{stroke:var(--line);fill:none}}
.axis{{stroke:var(--gone);fill:none}}
.curve{{fill:none;stroke-linejoin:round;stroke-linecap:round}}
.curve.main{{stroke:var(--accent);stroke-width:2.2}}
.curve.second{{stroke:var(--second);stroke-width:1.5;stroke-dasharray:4 3.5}}
.alone.main{{fill:var(--accent)}}
.alone.second{{fill:var(--second)}}
.restart{{stroke:var(--gone);stroke-width:1.3;stroke-dasharray:1.5 3;fill:none}}
circle.kept,circle.saved{{fill:var(--accent);stroke:var(--card);stroke-width:1.3}}
circle.deleted{{fill:var(--card);stroke:var(--gone);stroke-width:1.3}}
.aside{{fill:none;stroke:var(--gone);stroke-width:1}}
.aside.kept,.aside.saved{{stroke:var(--accent)}}
.star{{fill:var(--gold);stroke:var(--gold-edge);stroke-width:.9;stroke-linejoin:round}}
.value{{font-size:12px;font-weight:600;fill:var(--text);stroke:var(--card);stroke-width:3.5px;
paint-order:stroke;stroke-linejoin:round}}
table{{width:100%;border-collapse:collapse;font-size:.93rem}}
th,td{{padding:.5rem 1.1rem .5rem 0;text-align:left;vertical-align:baseline;
border-bottom:1px solid var(--line)}}
thead th{{color:var(--soft);font-weight:500;font-size:.82rem}}
tbody th{{font-weight:500}}
th:last-child,td:last-child{{padding-right:.4rem}}
.n{{text-align:right}}
tr.best{{background:linear-gradient(90deg,transparent,var(--wash) 1rem)}}
tr.gone td,tr.gone th{{color:var(--gone);font-weight:400}}
.tag{{display:inline-block;border:1px solid currentColor;border-radius:1rem;padding:0 .55rem;
font-size:.8rem;line-height:1.45;margin-right:.3rem;white-space:nowrap}}
.tag.is-best{{background:var(--gold);border-color:var(--gold);color:#2b2000;font-weight:600}}
.tag.is-newest{{color:var(--accent)}}
.tag.is-bad{{color:var(--bad)}}
.facts{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));
gap:1.25rem 2.5rem}}
.facts dl{{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);margin:0;
font-size:.93rem}}
.facts dt,.facts dd{{margin:0;padding:.32rem .75rem .32rem 0;border-bottom:1px solid var(--line)}}
.facts dt{{color:var(--soft);overflow-wrap:anywhere}}
details{{margin:1.25rem 0}}
summary{{cursor:pointer;color:var(--accent);padding:.3rem 0}}
summary:focus-visible{{outline:2px solid var(--accent);outline-offset:3px;border-radius:.2rem}}
.note{{border-left:3px solid var(--gold);padding:.1rem 0 .1rem .9rem}}
footer{{margin-top:3rem;padding-bottom:2.5rem;font-size:.88rem;color:var(--soft)}}
footer p{{border-top:1px solid var(--line);padding-top:1rem;max-width:none}}
@media (max-width:44rem){{
main,footer{{padding:0 1rem}}
header{{padding-top:1.5rem}}
figure{{padding:.8rem .6rem .4rem}}
figcaption{{padding:0 .3rem}}
.figures{{grid-template-columns:1fr 1fr}}
.figures dd{{font-size:1.15rem}}
.tick{{font-size:13px}}
.value{{font-size:14px}}
table,tbody,tr,td,tbody th{{display:block;border:0;padding:0}}
thead{{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}}
tr{{padding:.7rem 0;border-bottom:1px solid var(--line)}}
tr.best{{background:var(--wash);margin:0 -1rem;padding:.7rem 1rem}}
tbody th{{font-weight:600;margin-bottom:.15rem}}
td[data-label]{{display:flex;justify-content:space-between;gap:1rem;text-align:right}}
td[data-label]::before{{content:attr(data-label);color:var(--soft);flex:none}}
td:empty{{display:none}}
}}
@media print{{
:root{{color-scheme:light}}
body{{font-size:10.5pt}}
header{{padding-top:0}}
figure,tr,.figures{{break-inside:avoid}}
h2{{break-after:avoid}}
.curves{{grid-template-columns:1fr 1fr}}
a{{color:inherit}}
}}
"""
