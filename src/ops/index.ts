// The list of operators: one line each.
export { attentionGqa } from './attention_gqa.js';
export { attentionGqaBackward } from './attention_gqa_backward.js';
export { attentionGqaPaged } from './attention_gqa_paged.js';
export { attentionMerge } from './attention_merge.js';
export { attentionMla } from './attention_mla.js';
export { gemm } from './gemm.js';
export { gemmInt4 } from './gemm_int4.js';
export { kvAppend } from './kv_append.js';
export { nsaAttend } from './nsa_attend.js';
export { nsaCompress } from './nsa_compress.js';
export { peak } from './peak.js';
export { rope } from './rope.js';
