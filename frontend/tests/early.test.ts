import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { sendEarly, takeEarly } from "../src/api/early";

const fetched = vi.fn<(url: string) => Promise<Response>>();

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("fetch", fetched);
  vi.stubGlobal("document", { baseURI: "http://airflow/prefix/" });
  fetched.mockReset();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("an early answer is taken once", async () => {
  fetched.mockResolvedValue(new Response("{}"));
  sendEarly("/work?limit=10");
  expect(fetched.mock.calls[0]?.[0]).toBe("http://airflow/prefix/modalflow/ui/api/work?limit=10");
  expect(takeEarly("/work?limit=11")).toBeUndefined();
  expect(await takeEarly("/work?limit=10")).toBe("{}");
  expect(takeEarly("/work?limit=10")).toBeUndefined();
  expect(fetched).toHaveBeenCalledTimes(1);
});

test("whoever takes the answer learns of its failure", async () => {
  fetched.mockImplementation(() => Promise.resolve(new Response('{"detail": "gone"}', { status: 500 })));
  sendEarly("/overview");
  await expect(takeEarly("/overview")).rejects.toThrow("gone");
  sendEarly("/nobody-takes-it");
  await vi.advanceTimersByTimeAsync(1);
});

test("an old answer is not taken for a new one", () => {
  fetched.mockResolvedValue(new Response("{}"));
  sendEarly("/overview");
  vi.advanceTimersByTime(2999);
  sendEarly("/work");
  vi.advanceTimersByTime(1);
  expect(takeEarly("/overview")).toBeUndefined();
  expect(takeEarly("/work")).toBeDefined();
});
