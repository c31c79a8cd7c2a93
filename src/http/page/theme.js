// Light or dark before the first paint: this file is no module, so that the page waits for it.
(() => {
  const root = document.documentElement;
  const set = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; };
  try { set(localStorage.getItem('weir.theme')); } catch { /* The system's choice stays. */ }
  addEventListener('DOMContentLoaded', () => {
    document.getElementById('theme')?.addEventListener('click', () => {
      const isDark = getComputedStyle(root).colorScheme === 'dark'
        || (!root.dataset.theme && matchMedia('(prefers-color-scheme: dark)').matches);
      set(isDark ? 'light' : 'dark');
      try { localStorage.setItem('weir.theme', root.dataset.theme); } catch { /* Until the next visit. */ }
    });
  });
})();
