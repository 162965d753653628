import { MantineProvider } from "@mantine/core";
import { cleanup, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, expect, it, vi } from "vitest";
import { filtersOf, inboxSearch } from "./search";
import { useKeys, useSingleKeys } from "./useKeys";

afterEach(() => {
  cleanup();
  localStorage.clear();
});

function Keys({ onJ }: { onJ: () => void }) {
  const [, setSingle] = useSingleKeys();
  useKeys({ j: onJ });
  return (
    <>
      <textarea aria-label="Answer" />
      <button type="button" onClick={() => setSingle(false)}>
        Off
      </button>
    </>
  );
}

it("hears single keys outside of fields, until they are turned off", () => {
  const onJ = vi.fn();
  render(
    <MantineProvider env="test">
      <Keys onJ={onJ} />
    </MantineProvider>,
  );
  const off = screen.getByRole("button");
  fireEvent.keyDown(document.body, { key: "j" });
  fireEvent.keyDown(off, { key: "j" });
  expect(onJ).toHaveBeenCalledTimes(2);
  fireEvent.keyDown(screen.getByRole("textbox"), { key: "j" });
  fireEvent.keyDown(document.body, { key: "j", ctrlKey: true });
  fireEvent.keyDown(document.body, { key: "toString" });
  expect(onJ).toHaveBeenCalledTimes(2);
  fireEvent.click(off);
  fireEvent.keyDown(document.body, { key: "j" });
  expect(onJ).toHaveBeenCalledTimes(2);
});

it("keeps the filters that exist", () => {
  const given = { show: "mine", dag: "a", run: "b", age: "24h" };
  expect(inboxSearch({ ...given, other: 1 })).toEqual(given);
  expect(inboxSearch({ show: "open", dag: "", age: "toString" })).toEqual({});
  expect(filtersOf({ show: "mine", age: "1h" })).toMatchObject({ state: "open", mine: true, olderThan: 3600 });
});
