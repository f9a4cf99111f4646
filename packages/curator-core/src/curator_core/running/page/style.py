"""The style of the page: one calm design for desktops, phones, dark mode and paper."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2330;--soft:#566073;--line:#e3e7ee;--wash:#f5f7fa;--kept:#2f6fde;--dropped:#f0a43a;
--aside:#d8432f;--clock:#9aa7bd;--good:#1d7f46;--mixed:#8a5a00;--bad:#b3261e;--mark:#fde7c2;--link:#1f5bc4;
--s0:#83adf0;--s1:#5c8fe6;--s2:#3a70d4;--s3:#2452a6;--s4:#12336f}
@media(prefers-color-scheme:dark){:root{--paper:#141821;--ink:#e6e9f0;--soft:#a3adc0;--line:#2b3242;--wash:#1c2230;
--kept:#5b93f5;--dropped:#d99333;--aside:#ec6a58;--clock:#5d6a82;--good:#58c287;--mixed:#dfae52;--bad:#f08076;--mark:#46340f;
--link:#8ab2ff;--s0:#476cb3;--s1:#6189d2;--s2:#82a7ee;--s3:#adc8fa;--s4:#e0eaff}}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
body{margin:0 auto;max-width:1080px;padding:32px 24px 64px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
h1{font-size:26px;line-height:1.25;margin:0}
h2{font-size:18px;margin:44px 0 10px}
h3{font-size:15px;margin:0}
a{color:var(--link)}
header p{margin:6px 0 0;color:var(--soft)}
.state{font-size:13px;font-weight:600;vertical-align:4px;padding:2px 10px;border-radius:99px;border:1px solid;white-space:nowrap}
.good{color:var(--good)}.mixed{color:var(--mixed)}.bad{color:var(--bad)}.soft{color:var(--soft)}
nav{margin-top:14px;font-size:13px;display:flex;flex-wrap:wrap;gap:4px 16px}
.cards{display:flex;flex-wrap:wrap;gap:10px;margin-top:22px}
.card{flex:1 1 112px;background:var(--wash);border:1px solid var(--line);border-radius:10px;padding:12px}
.card b{display:block;font-size:19px;white-space:nowrap;font-variant-numeric:tabular-nums}
.card span{color:var(--soft);font-size:13px}
.card i{display:block;min-height:1.5em;font-style:normal;font-size:13px;color:var(--soft)}
.notes ul{margin:0;padding-left:20px}.notes li{white-space:pre-wrap;color:var(--ink)}
.alarms ul{list-style:none;margin:0;padding:0}
.alarms li{border-left:3px solid var(--dropped);background:var(--wash);border-radius:0 8px 8px 0;padding:8px 14px;margin:6px 0}
.alarms li b{font-weight:600}.alarms li span{display:block;color:var(--soft)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
.funnel td{text-align:right;white-space:nowrap}
th{text-align:left;font-weight:500}
.funnel th{min-width:11em;overflow-wrap:break-word}
th,td{padding:7px 10px;border-bottom:1px solid var(--line)}
thead th,thead td{color:var(--soft);font-size:13px;font-weight:400}
.funnel td.name{text-align:left;color:var(--soft)}
td.bars{width:34%;min-width:120px}td.time{width:9%;min-width:60px}
.bars div,.time div{display:flex;height:14px;background:var(--wash);border-radius:3px;overflow:hidden}
.kept{background:var(--kept);fill:var(--kept)}.dropped{background:var(--dropped);fill:var(--dropped)}
.aside{background:var(--aside);fill:var(--aside)}.clock{background:var(--clock)}
.key{color:var(--soft);font-size:13px;margin:0 0 6px}
.key span{display:inline-block;width:11px;height:11px;border-radius:2px;margin:0 6px 0 12px}
.key span:first-child{margin-left:0}
.filter{border:1px solid var(--line);border-radius:12px;padding:16px 18px;margin:14px 0}
.filter header{display:flex;flex-wrap:wrap;gap:2px 14px;align-items:baseline;justify-content:space-between}
.filter header p{margin:0;color:var(--ink);font-variant-numeric:tabular-nums}
.filter>p{margin:2px 0 10px;color:var(--soft)}
figure{margin:12px 0 4px}figcaption{font-size:13px}figcaption span{color:var(--soft)}
svg{display:block;width:100%;height:auto;overflow:visible;touch-action:pan-y}
svg text{font-size:12px;fill:var(--soft)}
.axis{stroke:var(--line)}
.handle{cursor:ew-resize;touch-action:none;outline:none}
.handle .grip{fill:transparent}.handle line{stroke:var(--ink);stroke-width:1.5}
.handle circle{fill:var(--paper);stroke:var(--ink);stroke-width:2}
.handle text{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:4px}
.handle:focus-visible circle{stroke:var(--link);stroke-width:4}.handle:focus-visible line{stroke:var(--link)}
.top{display:grid;grid-template-columns:minmax(0,1fr) 290px;gap:6px 26px}.top>:only-child{grid-column:1/-1;max-width:680px}
.unsure h4,.sides h4{font-size:13px;font-weight:600;margin:8px 0 0}.unsure ol{margin:4px 0;padding-left:18px;font-size:13.5px}.unsure li{margin:4px 0}
.unsure p{margin:4px 0;font-size:13px}
.stays{margin:4px 0 0;font-variant-numeric:tabular-nums}.stays .around{display:block;color:var(--soft);font-size:13px}
.sides{display:grid;grid-template-columns:1fr 1fr;gap:6px 22px;margin-top:10px}
.sides.alone{grid-template-columns:1fr}
.sides h4 span{font-weight:400;color:var(--soft)}
.example{border-top:1px solid var(--line);padding:7px 0;font-size:14px}
.example p{margin:0}.example .text{white-space:pre-wrap;font-size:13px;color:var(--soft)}
.example .where{font-size:12.5px;color:var(--soft)}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(96px,1fr));gap:8px;margin:8px 0 0}
.shot{border:0;padding:0;min-width:0}.shot summary{list-style:none;display:flex;flex-direction:column;gap:2px;font-size:12.5px}
.shot summary::-webkit-details-marker{display:none}
.shot img{width:100%;height:96px;object-fit:contain;background:var(--wash);border-radius:6px}
.shot p{margin:2px 0;font-size:13.5px}.shot .text{color:var(--soft)}.shot .where{font-size:12.5px;color:var(--soft)}
.shot[open]{grid-column:1/-1;border:1px solid var(--line);border-radius:8px;padding:8px 10px}
.shot[open] img{width:96px}.shot summary:focus-visible img{outline:2px solid var(--link);outline-offset:2px}
.pair{width:96px;height:96px;object-fit:contain;background:var(--wash);border-radius:6px;display:block;margin:4px 0}
.timeline svg text{font-size:8px}.gap{fill:var(--paper)}
.key .swatch{display:inline-block;width:14px;height:14px;margin:0 6px 0 0;vertical-align:-2px}
.sides.pictures{grid-template-columns:auto auto;justify-content:start;margin:0 0 8px}
#duplicates h3{margin-top:22px}#duplicates ul{padding-left:20px}
.map-key em{font-style:normal;display:inline-block;margin-right:12px}.map-key em span:first-child{margin:0 6px 0 0}
.map .ground{fill:var(--wash);stroke:var(--line)}.map .kept circle{stroke:var(--paper);stroke-width:1}
.map svg:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:8px}
.map g.dropped path{fill:none;stroke:currentColor;stroke-width:2}.map g.dropped{fill:none}
.map .here circle{stroke:var(--ink);stroke-width:3;r:7px}.map .here path{stroke-width:4.5}
.map .stays{min-height:3em;font-size:13.5px}
.shade-none{color:var(--clock);fill:var(--clock);background:var(--clock)}
.shade-0{color:var(--s0);fill:var(--s0);background:var(--s0)}.shade-1{color:var(--s1);fill:var(--s1);background:var(--s1)}
.shade-2{color:var(--s2);fill:var(--s2);background:var(--s2)}.shade-3{color:var(--s3);fill:var(--s3);background:var(--s3)}
.shade-4{color:var(--s4);fill:var(--s4);background:var(--s4)}
.map g,svg path{background:none}
mark{background:var(--mark);color:var(--ink);border-radius:2px}
details{border-bottom:1px solid var(--line);padding:7px 0}summary{cursor:pointer}
details ul{margin:8px 0;padding-left:20px;color:var(--soft)}
pre{background:var(--wash);border:1px solid var(--line);border-radius:8px;padding:12px 14px;margin:6px 0;
white-space:pre-wrap;font:13px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace}
code{font:12.5px ui-monospace,Menlo,Consolas,monospace}
button.copy{font:12px system-ui,sans-serif;color:var(--link);background:none;border:0;padding:2px 6px;cursor:pointer}
.flow{display:flex;flex-wrap:wrap;gap:10px 0;align-items:stretch;list-style:none;margin:0;padding:0}
.flow>li{display:flex;align-items:center}
.flow>li+li::before{content:"\\2192";padding:0 10px;color:var(--soft)}
.flow div{border:1px solid var(--line);border-radius:10px;background:var(--wash);padding:8px 12px}
.flow small{display:block;color:var(--soft)}.flow b{display:block;font-weight:500}
.facts th{width:12em;color:var(--soft)}
@media(max-width:900px){.top{grid-template-columns:minmax(0,1fr)}}
@media print,(max-width:1080px){.funnel{font-size:13.5px}.funnel th,.funnel td{padding:5px 6px}.funnel th{min-width:8em}
.funnel thead td{white-space:normal}td.bars{width:20%;min-width:60px}td.time{width:0;min-width:0;padding:0}td.time div{display:none}}
@media screen and (max-width:780px){.funnel,.funnel tbody,.funnel tr{display:block}.funnel{font-size:15px}.funnel thead{display:none}
.funnel tr{display:flex;flex-wrap:wrap;gap:2px 14px;padding:9px 0;border-bottom:1px solid var(--line)}
.funnel th,.funnel td{border:0;padding:0;min-width:0;white-space:normal}.funnel th{flex:1 0 100%}
.funnel td:empty{display:none}.funnel td.bars{flex:1 0 100%;width:100%}.funnel td.time{display:none}
.funnel td[data-name]::before{content:attr(data-name) " ";color:var(--soft);font-size:13px}
.plain{display:table}.plain tbody{display:table-row-group}.plain thead{display:table-header-group}.plain tr{display:table-row}
.plain th,.plain td{padding:5px 8px 5px 0;border-bottom:1px solid var(--line)}.plain tr{border:0}}
@media screen and (max-width:640px){body{padding:20px 14px 48px}.sides:not(.pictures),.top{grid-template-columns:minmax(0,1fr)}.filter{padding:12px}
.cards{display:grid;grid-template-columns:1fr 1fr}.card b{white-space:normal;font-size:17px}
.facts th,.facts td{display:block;width:auto}.facts th{border:0;padding-bottom:0}
svg text{font-size:20px}.timeline svg text{font-size:18px}.handle circle{r:11px}}
@media print{body{max-width:none;padding:0;font-size:13px}.wide{overflow:visible}nav,button.copy{display:none}.filter,.card,li{break-inside:avoid}
*{print-color-adjust:exact}}
@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
"""
