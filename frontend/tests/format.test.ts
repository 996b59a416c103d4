import { describe, expect, test } from "vitest";

import { cores, dateTime, dollars, duration, memory } from "../src/lib/format";
import { firstDay } from "../src/lib/days";

describe("texts of figures", () => {
  test.each([
    [0, "0 s"], [0.35, "350 ms"], [4.24, "4.2 s"], [59.6, "1 min"], [200, "3 min 20 s"], [7_500, "2 h 5 min"],
    [273_600, "3 d 4 h"], [-3, "0 s"],
  ])("a duration has its two largest units: %s", (seconds, text) => expect(duration(seconds)).toBe(text));

  test.each([
    [0, "$0.00"], [1234.4, "$1,234"], [12.345, "$12.35"], [0.0042, "$0.0042"], [0.5, "$0.50"], [0.00001, "< $0.0001"],
    [null, "–"],
  ])("dollars have the digits that tell something: %s", (value, text) => expect(dollars(value)).toBe(text));

  test("a time is that of Airflow's time zone", () => {
    expect(dateTime(1_796_000_000, "UTC")).toBe("2026-11-30 00:53:20");
    expect(dateTime(1_796_000_000.25, "Asia/Tokyo", true)).toBe("2026-11-30 09:53:20.250");
    expect(dateTime(0, "UTC")).toBe("");
  });

  test("memory and cores", () => {
    expect([memory(512), memory(4096), memory(1536), memory(null)]).toEqual(["512 MiB", "4 GiB", "1.5 GiB", "–"]);
    expect([cores(0.25), cores(4), cores(null)]).toEqual(["0.25", "4", "–"]);
  });

  test("the last seven days begin six days ago", () => {
    expect(firstDay(Date.UTC(2026, 10, 29, 23), 7)).toBe("2026-11-23");
  });
});
