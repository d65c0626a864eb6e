// Just enough of the ONNX format (protocol buffers) to write a model of one operator: y = MatMul(x, w) with w in the model.
// Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto

const varint = (value) => {
  const bytes = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) + 128);
  }
};
const integer = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field, value) => [varint(field * 8 + 2), varint(value.length), value];
const message = (field, ...parts) => Buffer.concat(bytes(field, Buffer.concat(parts.flat())));
const text = (field, value) => message(field, Buffer.from(value));

/** TensorProto.DataType */
const elementType = { f32: 1, f16: 10 };

const valueInfo = (field, name, type, shape) =>
  message(
    field,
    text(1, name),
    message(
      2,
      message(1, integer(1, elementType[type]), message(2, ...shape.map((size) => message(1, integer(1, size))))),
    ),
  );

/**
 * A model whose weight is a constant, as a trained model has it, so that a runtime may pack it when it loads.
 *
 * @param type `f32` or `f16`: element type of x, w and y
 * @param w [k, n], little-endian elements, k * n of them
 */
export function matmulModel(type, m, k, n, w) {
  const raw = new Uint8Array(w.buffer, w.byteOffset, w.byteLength);
  const node = message(1, text(1, 'x'), text(1, 'w'), text(2, 'y'), text(4, 'MatMul'));
  const weight = message(5, integer(1, k), integer(1, n), integer(2, elementType[type]), text(8, 'w'), bytes(9, raw));
  const graph = [node, text(2, 'matmul'), weight, valueInfo(11, 'x', type, [m, k]), valueInfo(12, 'y', type, [m, n])];
  const irVersion = integer(1, 8);
  const operatorSet = message(8, integer(2, 17));
  return Buffer.concat([irVersion, message(7, ...graph), operatorSet]);
}
