// Elements in one call; text is always text, never markup.
type Child = Node | string | null;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string | null>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

/** A labelled choice; `changed` hears the new value. */
export function choice(
  name: string,
  options: readonly (readonly [value: string, text: string])[],
  value: string,
  changed: (value: string) => void,
): HTMLLabelElement {
  const items = options.map(([of, text]) => h('option', { value: of }, text));
  const select = h('select', {}, ...items);
  select.value = value;
  select.addEventListener('change', () => changed(select.value));
  return h('label', {}, name, select);
}

export const section = (title: string, ...children: readonly Child[]): HTMLElement =>
  h('section', { 'aria-label': title }, h('h2', {}, title), ...children);

export const replace = (parent: HTMLElement, ...children: readonly Child[]): void =>
  parent.replaceChildren(...children.filter((child) => child !== null));
