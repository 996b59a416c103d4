import { expect, test } from "vitest";

import { Address } from "../src/lib/address";

const query = (text: string) => new URLSearchParams(text);
const set = (name: string, value: string) => (before: URLSearchParams) => {
  const next = new URLSearchParams(before);
  next.set(name, value);
  return next;
};

test("changes in a row keep each other, whatever the router shows in between", () => {
  const address = new Address();
  address.show(query("sort=since"));
  address.change(set("state", "waiting"));
  address.change(set("profile", "gpu"));
  address.show(query("sort=since&state=waiting"));
  expect(address.change(set("q", "secret")).toString()).toBe("sort=since&state=waiting&profile=gpu&q=secret");
});

test("a second part of the page that sees the same query changes nothing", () => {
  const address = new Address();
  address.change(set("state", "waiting"));
  address.change(set("profile", "gpu"));
  address.show(query("state=waiting"));
  address.show(query("state=waiting"));
  expect(address.change(set("q", "x")).toString()).toBe("state=waiting&profile=gpu&q=x");
});

test("the back button wins over changes", () => {
  const address = new Address();
  address.show(query("state=waiting"));
  address.change(set("profile", "gpu"));
  address.show(query("days=7"));
  expect(address.change(set("q", "x")).toString()).toBe("days=7&q=x");
});

test("a change without effect is not waited for", () => {
  const address = new Address();
  address.show(query("a=1"));
  address.change(set("a", "1"));
  address.show(query("b=2"));
  address.show(query("a=1"));
  expect(address.change(set("c", "3")).toString()).toBe("a=1&c=3");
});
