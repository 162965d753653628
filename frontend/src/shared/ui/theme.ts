import {
  Alert,
  Badge,
  Button,
  type CSSVariablesResolver,
  createTheme,
  defaultVariantColorsResolver,
  Drawer,
  type MantineColorsTuple,
  Modal,
  Paper,
  Skeleton,
  Table,
  Tooltip,
} from "@mantine/core";

/** The brand colour, also used for live things: running tasks, streaming agents. */
const petrol: MantineColorsTuple = [
  "#ecf7f9",
  "#d5ecf0",
  "#a9d9e2",
  "#78c4d2",
  "#4db0c2",
  "#2b98ad",
  "#157f94",
  "#0c6679",
  "#0b5263",
  "#093f4d",
];

/** Cool neutrals; 6 is dimmed text, with a contrast of 4.8 against the page. */
const gray: MantineColorsTuple = [
  "#f6f8f9",
  "#eef2f4",
  "#e3e9ec",
  "#d3dbe0",
  "#bdc8cf",
  "#94a2ac",
  "#5c6b76",
  "#43505a",
  "#2b353d",
  "#171f25",
];

const dark: MantineColorsTuple = [
  "#dde5e9",
  "#bac6cd",
  "#98a6b0",
  "#6d7c87",
  "#35424a",
  "#29343b",
  "#1a2228",
  "#11171b",
  "#0c1114",
  "#07090b",
];

const red: MantineColorsTuple = [
  "#fdeeec",
  "#f9d9d5",
  "#f1b1aa",
  "#e9867b",
  "#e26154",
  "#d7473a",
  "#c53528",
  "#ab2b20",
  "#8d241b",
  "#6f1d17",
];

/** Which state's colour pair a Mantine colour maps to on a soft surface. */
const TONES: Record<string, string> = { petrol: "live", red: "bad", green: "good", yellow: "caution", gray: "idle" };

const sans = '"Geist Variable", system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const mono = '"Geist Mono Variable", ui-monospace, "SF Mono", Menlo, Consolas, monospace';

export const theme = createTheme({
  primaryColor: "petrol",
  primaryShade: { light: 7, dark: 6 },
  autoContrast: true,
  colors: { petrol, gray, dark, red },
  black: "#171f25",
  fontFamily: sans,
  fontFamilyMonospace: mono,
  headings: {
    fontFamily: sans,
    fontWeight: "600",
    sizes: {
      h1: { fontSize: "1.375rem", lineHeight: "1.3" },
      h2: { fontSize: "1.0625rem", lineHeight: "1.35" },
      h3: { fontSize: "0.9375rem", lineHeight: "1.4" },
    },
  },
  fontSizes: { xs: "0.75rem", sm: "0.8125rem", md: "0.875rem", lg: "1rem", xl: "1.125rem" },
  defaultRadius: "md",
  radius: { xs: "3px", sm: "5px", md: "7px", lg: "10px", xl: "14px" },
  cursorType: "pointer",
  focusRing: "auto",
  respectReducedMotion: true,
  // Soft surfaces use the states' pairs, whose contrast is verified in both schemes.
  variantColorResolver: (input) => {
    const resolved = defaultVariantColorsResolver(input);
    const tone = input.variant === "light" ? TONES[String(input.color ?? "petrol")] : undefined;
    return tone === undefined
      ? resolved
      : {
          ...resolved,
          background: `var(--state-${tone}-soft)`,
          hover: `color-mix(in srgb, var(--state-${tone}-soft), var(--state-${tone}) 12%)`,
          color: `var(--state-${tone})`,
        };
  },
  components: {
    Alert: Alert.extend({ defaultProps: { variant: "light" } }),
    Badge: Badge.extend({ defaultProps: { radius: "sm", tt: "none", fw: 500 } }),
    Button: Button.extend({ defaultProps: { size: "sm" } }),
    Drawer: Drawer.extend({ defaultProps: { position: "right", size: "xl" } }),
    Modal: Modal.extend({ defaultProps: { centered: true } }),
    Paper: Paper.extend({ defaultProps: { withBorder: true, radius: "lg" } }),
    Skeleton: Skeleton.extend({ defaultProps: { radius: "sm" } }),
    Table: Table.extend({ defaultProps: { verticalSpacing: "xs", horizontalSpacing: "md" } }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 250, withArrow: true } }),
  },
});

/** State colours, in pairs with a contrast of at least 4.5:1, and the surfaces. */
export const variables: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    "--mantine-color-body": "#f6f8f9",
    "--mantine-color-dimmed": "#5c6b76",
    "--mantine-color-placeholder": "#6b7a85",
    "--mantine-color-error": "#b3261a",
    "--flow-surface": "#ffffff",
    "--flow-sunken": "#f0f4f5",
    "--flow-line": "#dfe6ea",
    "--flow-hover": "#f2f6f7",
    "--state-live": "#0c6679",
    "--state-live-soft": "#e2f2f5",
    "--state-good": "#1b7037",
    "--state-good-soft": "#e5f4e9",
    "--state-bad": "#b3261a",
    "--state-bad-soft": "#fdecea",
    "--state-caution": "#855000",
    "--state-caution-soft": "#fcf0d9",
    "--state-idle": "#515f69",
    "--state-idle-soft": "#ebeff1",
    "--state-off": "#665577",
    "--state-off-soft": "#f1edf5",
  },
  dark: {
    "--mantine-color-body": "#0e1417",
    "--mantine-color-dimmed": "#98a6b0",
    "--mantine-color-placeholder": "#82919b",
    "--mantine-color-error": "#ff988c",
    "--mantine-color-anchor": "#78c4d2",
    "--flow-surface": "#141b1f",
    "--flow-sunken": "#0f1518",
    "--flow-line": "#263138",
    "--flow-hover": "#1a2328",
    "--state-live": "#6bcadd",
    "--state-live-soft": "#0f313a",
    "--state-good": "#7ad493",
    "--state-good-soft": "#12301c",
    "--state-bad": "#ff988c",
    "--state-bad-soft": "#3b1714",
    "--state-caution": "#f0bd66",
    "--state-caution-soft": "#35260c",
    "--state-idle": "#a8b5be",
    "--state-idle-soft": "#222b31",
    "--state-off": "#c2b0d4",
    "--state-off-soft": "#2b2436",
  },
});
