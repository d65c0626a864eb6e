# For checkouts alone: packages leave this file out, and tools/stage.mjs writes the same one where the addon is built.
{'includes': ['native/addon.gypi']}
