/** Formats numbers. Null means "unknown" and is shown as a dash. */

const NONE = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A count: 1,234; from 100,000 on 123.5K. */
export function count(value: number | null | undefined): string {
  if (value == null) return NONE;
  return Math.abs(value) >= 100_000 ? compact.format(value) : whole.format(value);
}

/** A user's number, with all its digits: 1,234.5678901. */
export function number(value: number): string {
  const size = Math.abs(value);
  const short = value === 0 || (size >= 1e-6 && size < 1e21);
  return short ? value.toLocaleString("en", { maximumFractionDigits: 20 }) : String(value);
}

/** US dollars with at least two significant digits: $1,234.50, $0.0042, <$0.0001. */
export function cost(value: number | null | undefined): string {
  if (value == null) return NONE;
  if (value === 0) return "$0";
  if (value < 0.0001) return "<$0.0001";
  const digits = value >= 1 ? 2 : Math.min(6, 1 - Math.floor(Math.log10(value)));
  return `$${value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

/** A share from 0 to 1 as percent: 97.5 %. */
export function percent(share: number | null | undefined): string {
  if (share == null) return NONE;
  const value = share * 100;
  return `${value.toLocaleString("en", { maximumFractionDigits: value > 0 && value < 99.95 ? 1 : 0 })} %`;
}

/** Bytes: 12 KB, 3.4 MB. */
export function bytes(value: number | null | undefined): string {
  if (value == null) return NONE;
  const units = ["B", "KB", "MB", "GB"];
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${size.toLocaleString("en", { maximumFractionDigits: unit === 0 || size >= 10 ? 0 : 1 })} ${units[unit] ?? ""}`;
}
