// The list of operators: one line each.
export { attentionGqa } from './attention_gqa.js';
export { attentionMerge } from './attention_merge.js';
export { gemm } from './gemm.js';
export { peak } from './peak.js';
