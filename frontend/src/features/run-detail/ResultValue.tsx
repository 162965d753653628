import { Text } from "@mantine/core";
import { isLosslessNumber } from "@/shared/api/exact-json";
import { bytes, cost, count, number } from "@/shared/format/amounts";
import { duration, latency } from "@/shared/format/times";
import { JsonView } from "@/shared/ui/JsonView";
import classes from "./ResultValue.module.css";

/** The members that matter most; shown first and larger. */
const HEADLINES = ["summary", "answer", "verdict", "data", "output", "results"];
/** Members that are shown elsewhere on the page, or only in the JSON. */
const ELSEWHERE = new Set(["text_regions", "usage", "cost_usd", "trace_id", "trace_url", "sha256"]);
const DEEPEST = 3;

/** Renders an agent's value for people: text as text, objects as lists of their members. */
export function ResultValue({ value, depth = 0 }: { value: unknown; depth?: number }) {
  if (value === null || value === undefined) return <Text c="dimmed">none</Text>;
  if (typeof value === "string") return <span className={classes.text}>{value}</span>;
  if (typeof value === "number") return <span className="tabular">{number(value)}</span>;
  if (isLosslessNumber(value)) return <span className="tabular">{value.value}</span>;
  if (typeof value === "boolean") return <span>{value ? "yes" : "no"}</span>;
  if (Array.isArray(value)) return <Items items={value} depth={depth} />;
  if (typeof value !== "object") return null;
  if (depth >= DEEPEST) return <JsonView value={value} label="this part" />;

  const members = Object.entries(value as Record<string, unknown>).filter(
    ([name, one]) => !ELSEWHERE.has(name) && !isEmpty(one),
  );
  if (members.length === 0) return <Text c="dimmed">nothing</Text>;
  const rank = (name: string) => (HEADLINES.includes(name) ? HEADLINES.indexOf(name) : HEADLINES.length);
  members.sort(([a], [b]) => rank(a) - rank(b));
  return (
    <dl className={classes.members} data-depth={depth}>
      {members.map(([name, one]) => (
        <div key={name} data-wide={isWide(one) || undefined} data-headline={rank(name) < 3 || undefined}>
          <dt>{nameOf(name)}</dt>
          <dd>
            {name === "palette" ? (
              <Palette colours={one} />
            ) : (
              <ResultValue value={withUnit(name, one)} depth={depth + 1} />
            )}
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** Unit suffixes of names, and how to format their values. */
const UNITS: [ending: RegExp, shown: (value: number) => string][] = [
  [/_bytes$/, bytes],
  [/_ms$/, latency],
  [/_seconds$/, duration],
  [/_usd$/, cost],
];

function withUnit(name: string, value: unknown): unknown {
  const amount = isLosslessNumber(value) ? Number(value.value) : value;
  if (typeof amount !== "number") return value;
  if (name === "width" || name === "height") return `${count(amount)} px`;
  return UNITS.find(([ending]) => ending.test(name))?.[1](amount) ?? value;
}

/** A member's name without its unit suffix. */
function nameOf(name: string): string {
  return UNITS.reduce((rest, [ending]) => rest.replace(ending, ""), name).replaceAll("_", " ");
}

function Items({ items, depth }: { items: unknown[]; depth: number }) {
  if (items.every((item) => typeof item !== "object" || item === null || isLosslessNumber(item))) {
    return (
      <ul className={classes.items}>
        {items.map((item, index) => (
          <li key={index}>{String(item)}</li>
        ))}
      </ul>
    );
  }
  if (depth >= DEEPEST || items.length > 20) return <JsonView value={items} label={`${count(items.length)} items`} />;
  return (
    <ol className={classes.list}>
      {items.map((item, index) => (
        <li key={index}>
          <ResultValue value={item} depth={depth + 1} />
        </li>
      ))}
    </ol>
  );
}

function Palette({ colours }: { colours: unknown }) {
  const known = Array.isArray(colours)
    ? colours.flatMap((one: unknown) => {
        const hex = typeof one === "object" && one !== null && "hex" in one ? one.hex : one;
        return typeof hex === "string" && /^#[0-9a-f]{6}$/i.test(hex) ? [hex] : [];
      })
    : [];
  if (known.length === 0) return <ResultValue value={colours} depth={DEEPEST} />;
  return (
    <ul className={classes.palette}>
      {known.map((hex, index) => (
        <li key={index}>
          <span style={{ background: hex }} aria-hidden /> <span className="mono">{hex}</span>
        </li>
      ))}
    </ul>
  );
}

function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined || value === "") return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

function isWide(value: unknown): boolean {
  return typeof value === "string" ? value.length > 60 : typeof value === "object" && !isLosslessNumber(value);
}
