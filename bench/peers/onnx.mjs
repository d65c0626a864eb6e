// Just enough of the ONNX format (protocol buffers) to write a model of one operator.
// Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto

const varint = (value) => {
  const bytes = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) + 128);
  }
};
const integer = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
const float = (field, value) => {
  const four = Buffer.alloc(4);
  four.writeFloatLE(value);
  return Buffer.concat([varint(field * 8 + 5), four]);
};
const bytes = (field, value) => [varint(field * 8 + 2), varint(value.length), value];
const message = (field, ...parts) => Buffer.concat(bytes(field, Buffer.concat(parts.flat())));
const text = (field, value) => message(field, Buffer.from(value));

/** TensorProto.DataType */
const elementType = { f32: 1, u8: 2, i32: 6, f16: 10 };

const valueInfo = (field, { name, type, shape }) =>
  message(
    field,
    text(1, name),
    message(
      2,
      message(1, integer(1, elementType[type]), message(2, ...shape.map((size) => message(1, integer(1, size))))),
    ),
  );

const constant = ({ name, type, shape, data }) => {
  const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return message(
    5,
    ...shape.map((size) => integer(1, size)),
    integer(2, elementType[type]),
    text(8, name),
    bytes(9, raw),
  );
};

/** AttributeProto.AttributeType */
const [floatAttribute, integerAttribute] = [1, 2];

/**
 * A model of one operator, as bytes.
 *
 * @param node `op`: its name; `domain`: '' for ONNX's own; `integers` (0 or more), `floats`: attributes by name
 * @param inputs `{ name, type, shape }` in the operator's order, null in the place of one that is left out. With `data`
 *   (little-endian elements) it is a constant, as a trained model has its weights, so that a runtime may pack it when it loads
 * @param outputs `{ name, type, shape }` in the operator's order; `type` is f32, f16, u8 or i32
 */
export function model({ op, domain = '', integers = {}, floats = {} }, inputs, outputs) {
  const node = message(
    1,
    inputs.map((input) => text(1, input?.name ?? '')),
    outputs.map((output) => text(2, output.name)),
    text(4, op),
    Object.entries(integers).map(([name, value]) =>
      message(5, text(1, name), integer(3, value), integer(20, integerAttribute)),
    ),
    Object.entries(floats).map(([name, value]) =>
      message(5, text(1, name), float(2, value), integer(20, floatAttribute)),
    ),
    text(7, domain),
  );
  const given = inputs.filter((input) => input !== null);
  const graph = [
    node,
    text(2, op),
    given.filter((input) => input.data).map(constant),
    given.filter((input) => !input.data).map((input) => valueInfo(11, input)),
    outputs.map((output) => valueInfo(12, output)),
  ];
  const irVersion = integer(1, 10);
  const operatorSet = (name, version) => message(8, text(1, name), integer(2, version));
  return Buffer.concat([
    irVersion,
    message(7, ...graph.flat()),
    operatorSet('', 23),
    ...(domain === '' ? [] : [operatorSet(domain, 1)]),
  ]);
}
