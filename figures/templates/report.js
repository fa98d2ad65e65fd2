const table = document.querySelector('table'), body = table.tBodies[0], rows = [...body.rows];
const heads = [...table.querySelectorAll('th button')].map(button => button.parentElement);
const get = id => document.getElementById(id);
const [text, kind, amount, count] = ['text', 'kind', 'amount', 'count'].map(get);
const key = (row, i) => row.cells[i].dataset.value;
heads.forEach((head, i) => head.firstElementChild.addEventListener('click', () => {
  const down = head.getAttribute('aria-sort') === 'ascending', sign = down ? -1 : 1;
  heads.forEach(other => other.setAttribute('aria-sort', 'none'));
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const numeric = head.dataset.type === 'number';
  body.append(...rows.slice().sort((a, b) => {
    const x = key(a, i), y = key(b, i);
    if (x === '' || y === '') return (x === '') - (y === '');
    return sign * (numeric ? x - y : x.localeCompare(y));
  }));
}));
function filter() {
  const wanted = text.value.trim().toLowerCase();
  rows.forEach(row => {
    row.hidden = !(row.cells[0].textContent.toLowerCase().includes(wanted)
      && (!kind.value || row.dataset.kind === kind.value)
      && (!amount.value || row.dataset.amount === amount.value));
  });
  count.textContent = rows.filter(row => !row.hidden).length + ' of ' + rows.length + ' rows';
}
[text, kind, amount].forEach(control => control.addEventListener('input', filter));
filter();
