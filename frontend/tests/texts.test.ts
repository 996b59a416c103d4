import { describe, expect, test } from "vitest";

import { ENGLISH, translate, translateName } from "../src/i18n/catalogue";
import { filtersOf, isFiltered, nextSort, withFilters, workPath } from "../src/lib/filters";
import { workReader } from "../src/lib/work";


describe("filters in the page's address", () => {
  test("they survive a round trip, and the rest of the query stays", () => {
    const query = new URLSearchParams("spend=day&state=running&state=waiting&q=etl%20load&sort=-since");
    const filters = filtersOf(query);
    expect(filters).toEqual({ state: ["running", "waiting"], profile: [], dag: [], q: "etl load", sort: "-since" });
    expect(withFilters(query, filters).toString()).toBe("spend=day&q=etl+load&sort=-since&state=running&state=waiting");
    expect(withFilters(query, { state: [], q: "", sort: "" }).toString()).toBe("spend=day");
    expect(workPath(filters)).toBe("/work?state=running&state=waiting&q=etl+load&sort=-since&limit=10000");
    expect([isFiltered(filters), isFiltered(filtersOf(new URLSearchParams("sort=since")))]).toEqual([true, false]);
  });

  test("a column sorts upwards, downwards, not at all", () => {
    expect(["", "since", "-since"].map((sort) => nextSort(sort, "since"))).toEqual(["since", "-since", ""]);
  });
});

describe("rows of the table of work", () => {
  test("columns are found by name; new ones are passed over, missing ones empty", () => {
    const work = workReader(["state", "new", "since", "work_id"])(["running", "?", 5.5, "w1"]);
    expect(work).toMatchObject({ state: "running", since: 5.5, work_id: "w1", reason: "", map_index: -1 });
  });
});

describe("texts", () => {
  test("values are put in, and a text that a language lacks is English", () => {
    expect(translate(ENGLISH, "work.cancel.number", { number: 3 })).toBe("Cancel 3");
    expect(translate({ language: "de", texts: {} }, "state.submitted")).toBe("on Modal");
  });

  test("a name of a newer server is shown as it is", () => {
    expect(translateName(ENGLISH, "span", "warming_up")).toBe("warming up");
  });
});
