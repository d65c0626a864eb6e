"""A JSON file of named findings, rewritten after each: { schema, emulated, items: { NAME: item } }, where an item is
either { value, unit?, note? } with state "ok", or { value: null, state, reason }. Nothing unknown is written as a number."""

import json
import os


class Items:
    def __init__(self, path, schema):
        self.path = path
        self.items = {}
        self.head = {'schema': schema, 'emulated': os.environ.get('KW_EMULATED') == '1'}

    def ok(self, name, value, unit=None, note=None):
        extra = {key: text for key, text in (('unit', unit), ('note', note)) if text}
        self._put(name, {'value': value, 'state': 'ok', **extra})

    def no(self, name, state, reason):
        self._put(name, {'value': None, 'state': state, 'reason': str(reason)})

    def _put(self, name, item):
        self.items[name] = item
        with open(self.path + '.new', 'w') as file:
            json.dump({**self.head, 'items': self.items}, file, indent=2)
        os.replace(self.path + '.new', self.path)
        value = item['value'] if item['state'] == 'ok' else f"{item['state']}: {item['reason']}"
        note = f"({item['note']})" if 'note' in item else None
        print(*(part for part in (f'{name}: {value}', item.get('unit'), note) if part))

    def summary(self):
        known = sum(1 for item in self.items.values() if item['state'] == 'ok')
        return f'{known} of {len(self.items)} items known'
