"""The only script of the page: it moves the handles of histograms, shows the rows of a map, and copies commands."""

SCRIPT = """
'use strict';
(function(){
const whole=new Intl.NumberFormat('en-US');
for(const figure of document.querySelectorAll('.histogram')){
  const score=JSON.parse(figure.dataset.score),svg=figure.querySelector('svg'),output=figure.querySelector('output');
  if(!output)continue;
  const at=score.limits.map(l=>l.at),line=figure.querySelector('.stays b');
  const rest=document.createElement('span'),verb=line.querySelector('span');
  line.after(rest);
  const stay=()=>{
    let low=score.all[0],high=score.all[1];
    score.limits.forEach((l,i)=>{const b=l.below[at[i]];if(l.least)low=Math.max(low,b);else high=Math.min(high,b)});
    const n=Math.max(0,high-low);
    return score.invert?score.rows-n:n;
  };
  const before=stay();
  const put=(handle,i,to)=>{
    const l=score.limits[i];
    at[i]=Math.min(Math.max(to,0),l.values.length-1);
    const n=stay(),d=n-before;
    handle.setAttribute('transform','translate('+l.x[at[i]]+' 0)');
    handle.setAttribute('aria-valuenow',at[i]);
    handle.setAttribute('aria-valuetext',l.name+' '+l.texts[at[i]]+': '+whole.format(n)+' of '+whole.format(score.rows)+(score.rows===1?' row ':' rows ')+score.verbs[+(n!==1)]);
    handle.dataset.value=l.values[at[i]];
    const text=handle.querySelector('text'),right=l.x[at[i]]>300;
    text.querySelector('tspan').textContent=l.texts[at[i]];
    text.setAttribute('text-anchor',right?'end':'start');
    text.setAttribute('x',right?-18:18);
    output.textContent=whole.format(n);verb.textContent=score.verbs[+(n!==1)];
    const moved=score.limits.filter((l,k)=>at[k]!==l.at).map((l)=>l.name+' '+l.texts[at[score.limits.indexOf(l)]]);
    rest.textContent=moved.length?' with '+moved.join(', ')+' ('+(d>0?'+':'')+whole.format(d)+' against this run)':'';
  };
  for(const handle of figure.querySelectorAll('.handle')){
    const i=+handle.dataset.limit,l=score.limits[i];
    handle.addEventListener('keydown',e=>{
      const last=l.values.length-1,big=Math.max(1,Math.round(last/10));
      const to={ArrowLeft:at[i]-1,ArrowDown:at[i]-1,ArrowRight:at[i]+1,ArrowUp:at[i]+1,PageDown:at[i]-big,PageUp:at[i]+big,
        Home:0,End:last,Escape:l.at}[e.key];
      if(to===undefined)return;
      e.preventDefault();put(handle,i,to);
    });
    const drag=e=>{
      const box=svg.getBoundingClientRect(),x=(e.clientX-box.left)*600/box.width;
      let best=0;
      l.x.forEach((p,k)=>{if(Math.abs(p-x)<Math.abs(l.x[best]-x))best=k});
      put(handle,i,best);
    };
    handle.addEventListener('pointerdown',e=>{
      handle.setPointerCapture(e.pointerId);handle.focus();
      handle.addEventListener('pointermove',drag);
    });
    for(const end of ['pointerup','pointercancel'])handle.addEventListener(end,()=>handle.removeEventListener('pointermove',drag));
    handle.addEventListener('dblclick',()=>put(handle,i,l.at));
  }
}
document.addEventListener('click',e=>{
  const button=e.target.closest('button.copy');
  if(!button)return;
  const code=button.previousElementSibling,say=()=>{button.textContent='copied';setTimeout(()=>button.textContent='copy',1500)};
  const select=()=>{const r=document.createRange();r.selectNodeContents(code);const s=getSelection();s.removeAllRanges();s.addRange(r);
    document.execCommand('copy');say()};
  if(navigator.clipboard)navigator.clipboard.writeText(code.textContent).then(say,select);else select();
});
for(const figure of document.querySelectorAll('.map')){
  const texts=JSON.parse(figure.dataset.points),svg=figure.querySelector('svg'),line=figure.querySelector('.stays');
  const marks=[...svg.querySelectorAll('[data-point]')],where=marks.map(m=>m.getBBox());
  const order=marks.map((m,i)=>i).sort((a,b)=>where[a].x-where[b].x||a-b);
  let at=0,last=null;
  const say=i=>{
    if(last)last.classList.remove('here');
    last=marks[i];last.classList.add('here');at=order.indexOf(i);
    line.textContent=texts[i];
    svg.setAttribute('aria-valuenow',at+1);svg.setAttribute('aria-valuetext',texts[i]);
  };
  for(const name of ['pointermove','pointerdown'])svg.addEventListener(name,e=>{
    const box=svg.getBoundingClientRect(),x=(e.clientX-box.left)*600/box.width,y=(e.clientY-box.top)*600/box.width;
    let best=-1,far=400;
    where.forEach((b,i)=>{const d=(b.x+b.width/2-x)**2+(b.y+b.height/2-y)**2;if(d<far){far=d;best=i}});
    if(best>=0)say(best);
  });
  svg.addEventListener('focus',()=>say(order[at]));
  svg.addEventListener('keydown',e=>{
    const end=order.length-1,to={ArrowLeft:at-1,ArrowDown:at-1,ArrowRight:at+1,ArrowUp:at+1,PageDown:at-10,PageUp:at+10,Home:0,End:end}[e.key];
    if(to===undefined)return;
    e.preventDefault();say(order[Math.min(Math.max(to,0),end)]);
  });
}
addEventListener('beforeprint',()=>{for(const d of document.querySelectorAll('details:not(.shot)'))d.open=true});
})();
"""
