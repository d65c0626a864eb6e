import type { Case, Model } from '../case.js';
export const cases = (): Case[] => [];
export const models: Model[] = [];
