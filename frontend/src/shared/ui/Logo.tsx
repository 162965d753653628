/** The logo. The name is beside it, so it has no label of its own. */
export function Logo({ size = 28 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="#0c5f70" />
      <g fill="none" stroke="#fff" strokeWidth="2.4" strokeLinecap="round">
        <path d="M9 10.5c7 0 5 11 14 11M9 10.5h14" opacity=".75" />
      </g>
      <g fill="#fff">
        <circle cx="9" cy="10.5" r="3.2" />
        <circle cx="23" cy="10.5" r="3.2" opacity=".75" />
        <circle cx="23" cy="21.5" r="3.2" />
      </g>
    </svg>
  );
}
