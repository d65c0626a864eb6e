// The list of operators: one line each.
export { attentionGqa } from './attention_gqa.js';
export { gemm } from './gemm.js';
