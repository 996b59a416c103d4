import { describe, expect, test } from "vitest";

import { stacked } from "../src/lib/lanes";
import { shownRows } from "../src/lib/rows";
import { percent, polyline, ticks, timeTicks } from "../src/lib/scale";

describe("rows in view", () => {
  test("a long table holds some dozens of rows, those in view among them", () => {
    for (const scrolled of [0, 35, 36, 5_000, 359_500]) {
      const { first, last } = shownRows(scrolled, 480, 36, 10_000);
      expect(last - first).toBeLessThan(80);
      expect(first).toBeLessThanOrEqual(Math.floor(scrolled / 36));
      expect(last).toBeGreaterThanOrEqual(Math.min(10_000, Math.ceil((scrolled + 480) / 36)));
    }
  });

  test("an empty table and one that has shrunk", () => {
    expect(shownRows(0, 480, 36, 0)).toEqual({ first: 0, last: 0 });
    expect(shownRows(9_000, 480, 36, 5).last).toBe(5);
  });
});

describe("axes", () => {
  test("round numbers to at least the largest value", () => {
    expect(ticks(51)).toEqual([0, 20, 40, 60]);
    expect(ticks(0)).toEqual([0, 1]);
    expect(ticks(0.004)).toEqual([0, 0.001, 0.002, 0.003, 0.004]);
  });

  test("round times, at most as many as wanted", () => {
    expect(timeTicks(95)).toEqual([0, 30, 60, 90]);
    expect(timeTicks(0)).toEqual([0]);
    for (const length of [0.2, 3, 77, 3_700, 90_000, 9e6]) expect(timeTicks(length).length).toBeLessThanOrEqual(7);
  });

  test("places stay within the chart", () => {
    expect([percent(5, 0, 10), percent(-1, 0, 10), percent(11, 0, 10), percent(5, 5, 5)]).toEqual([50, 0, 100, 0]);
    expect(polyline([0, 5, 10], [0, 1, 2], 2, 100, 40)).toBe("0.0,40.0 50.0,20.0 100.0,0.0");
  });
});

describe("bars of one lane", () => {
  test("bars that overlap are below each other, and a free row is used again", () => {
    const bars = [{ begins: 0, ends: 10 }, { begins: 5, ends: 8 }, { begins: 9, ends: 12 }, { begins: 10, ends: 11 }];
    expect(stacked(bars)).toEqual({ rows: [0, 1, 1, 0], number: 2 });
    expect(stacked([])).toEqual({ rows: [], number: 1 });
  });
});
