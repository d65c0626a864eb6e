// The list of operators: one line each.
export { gemm } from './gemm.js';
