// The floor under every call from JavaScript.
import { native } from '../native.js';

/** A function of the addon that does nothing: what crossing into C++ and back costs on this machine and Node. */
export const emptyNativeCall = (): (() => void) => native().nothing;
