import { describe, expect, it } from "vitest";
import { isLosslessNumber, parse, parseAnswer, rounded, stringify, toNumber } from "./exact-json";

const WRITTEN = [
  "9007199254740993",
  "-9223372036854775808",
  "18446744073709551615",
  "1.0",
  "-0",
  "-0.0",
  "0.10",
  "1e400",
  "1E5",
  "1e-7",
  "0.1234567890123456789012",
  "123456789.123456789",
  "3.141592653589793",
  "100000000000000000000000",
];

describe("parse and stringify", () => {
  it.each(WRITTEN)("keep %s as it is written", (text) => {
    expect(stringify(parse(text))).toBe(text);
    expect(stringify(parse(`{"a":[{"b":${text}}]}`))).toBe(`{"a":[{"b":${text}}]}`);
  });

  it("read other numbers as plain ones", () => {
    expect(parse('{"a":[0,1,-5,0.1,9007199254740991,20.05]}')).toEqual({ a: [0, 1, -5, 0.1, 9007199254740991, 20.05] });
  });

  it("leave texts and names alone", () => {
    const text = '{"1.0":"9007199254740993","__proto__":{"x":1.0},"q":"\\"1.0\\\\"}';
    expect(stringify(parse(text))).toBe(text);
  });

  it("take the last of several members with the same name", () => {
    expect(stringify(parse('{"a":1.0,"a":2.0}'))).toBe('{"a":2.0}');
  });

  it.each(["", "{", "01", "1.", "{1.0:2}", "[1.0,]", "NaN"])("refuse %s", (text) => {
    expect(() => parse(text)).toThrow(SyntaxError);
  });

  it("write what JSON.stringify writes", () => {
    const value = { a: [1, null, "ü\n", true, undefined], b: undefined, c: {}, d: [], e: { f: [{}] } };
    for (const space of [undefined, 2]) expect(stringify(value, space)).toBe(JSON.stringify(value, null, space));
  });
});

describe("parseAnswer", () => {
  it("gives the API's own numbers as plain ones, and users' values exactly", () => {
    const answer = parseAnswer('{"cost_usd":0.0,"agents":[{"latency_ms":2.0}],"input_data":{"n":1.0},"result":[2.50]}');
    expect(answer).toMatchObject({ cost_usd: 0, agents: [{ latency_ms: 2 }] });
    expect(stringify(answer)).toBe('{"cost_usd":0,"agents":[{"latency_ms":2}],"input_data":{"n":1.0},"result":[2.50]}');
  });
});

it("rounds on request", () => {
  expect(rounded(parse('{"a":[1.0,9007199254740993]}'))).toEqual({ a: [1, 9007199254740992] });
});

it("reads typed numbers", () => {
  expect(toNumber("12")).toBe(12);
  expect(isLosslessNumber(toNumber("12.0"))).toBe(true);
  expect(["", "1.", "abc", "0x1", " 1"].map(toNumber)).toEqual(Array(5).fill(undefined));
});
