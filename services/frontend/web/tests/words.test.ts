import assert from "node:assert/strict";
import { test } from "node:test";
import { Format, groups } from "../src/format.js";
import { pickLanguage, translate } from "../src/i18n.js";
import { Palette, Rate, shares } from "../src/split.js";

test("the address decides on the language, then the browser, then English", () => {
  assert.equal(pickLanguage("?lang=es", ["en-US"]), "es");
  assert.equal(pickLanguage("?lang=EN-gb", ["es"]), "en");
  assert.equal(pickLanguage("?lang=fr", ["es-GT", "en"]), "es");
  assert.equal(pickLanguage("", ["fr", "es-GT"]), "es");
  assert.equal(pickLanguage("", ["fr"]), "en");
});

test("values are put in, and both languages use the same ones", () => {
  assert.equal(translate("es", "retryIn", { s: 3 }), "próximo intento en 3 s");
  assert.equal(translate("en", "retryIn", { s: 3 }), "next try in 3 s");
  assert.equal(translate("en", "ofTotal", { used: "1" }), "1 of {total}");
});

test("numbers follow the language", () => {
  assert.equal(new Format("es").percent(12.34), "12,3\u00a0%");
  assert.equal(new Format("en").percent(12.34), "12.3\u00a0%");
  assert.equal(new Format("en").megabytes(512), "512\u00a0MB");
  assert.equal(new Format("es").megabytes(1536), "1,50\u00a0GB");
  assert.equal(new Format("en").rate(0.25), "0.3");
  assert.equal(new Format("en").rate(1234.5), "1,235");
});

test("thousands are set apart without a character", () => {
  assert.deepEqual(groups(0), ["0"]);
  assert.deepEqual(groups(999), ["999"]);
  assert.deepEqual(groups(1000), ["1", "000"]);
  assert.deepEqual(groups(1234567), ["1", "234", "567"]);
  assert.deepEqual(groups(123456), ["123", "456"]);
});

test("shares add up, and nothing has no shares", () => {
  const some = shares(new Map([["api2", 1], ["api1", 3]]), ["api3"]);
  assert.deepEqual(some, [
    { name: "api1", count: 3, share: 0.75 },
    { name: "api2", count: 1, share: 0.25 },
    { name: "api3", count: 0, share: 0 },
  ]);
  assert.deepEqual(shares(new Map(), ["api1"]), [{ name: "api1", count: 0, share: null }]);
});

test("a name keeps its colour", () => {
  const palette = new Palette(2);
  assert.deepEqual(["a", "b", "a", "c"].map((name) => palette.slot(name)), [0, 1, 0, 0]);
});

test("the rate is over the last seconds and survives an emptied table", () => {
  const rate = new Rate(3000);
  assert.equal(rate.update(100, 0), null);
  assert.equal(rate.update(110, 1000), 10);
  assert.equal(rate.update(120, 2000), 10);
  for (let s = 3; s <= 10; s++) rate.update(120, s * 1000);
  assert.equal(rate.update(120, 11_000), 0);
  assert.equal(rate.update(0, 12_000), null);
  assert.equal(rate.update(5, 13_000), 5);
});
