const get = id => document.getElementById(id);
const [text, only, saw, count] = ['text', 'only', 'saw', 'count'].map(get);
const rows = [...document.querySelectorAll('#contents tbody tr')];
function filter() {
  const wanted = text.value.trim().toLowerCase();
  rows.forEach(row => {
    row.hidden = !(row.textContent.toLowerCase().includes(wanted)
      && (!only.value || row.dataset.ran === only.value)
      && (!saw.value || row.dataset.seen === saw.value));
  });
  count.textContent = rows.filter(row => !row.hidden).length + ' of ' + rows.length + ' entries';
}
[text, only, saw].forEach(control => control.addEventListener('input', filter));
filter();
