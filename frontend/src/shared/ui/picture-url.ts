/**
 * The URL from which the browser loads the picture of a run's `image_url`; null if it can't be shown here.
 *
 * Pictures of other hosts come through the backend: whoever owns the address must not learn who looks at a run.
 */
export function pictureUrl(imageUrl: unknown): string | null {
  if (typeof imageUrl !== "string") return null;
  const [, scheme, rest] = /^([a-z]+):(?:\/\/)?(.*)$/is.exec(imageUrl.trim()) ?? [];
  switch (scheme?.toLowerCase()) {
    case "upload":
      return `/images/${encodeURIComponent(rest ?? "")}`;
    case "sample":
      return `/images/samples/${encodeURIComponent(rest ?? "")}`;
    case "http":
    case "https":
      return `/images/remote?url=${encodeURIComponent(imageUrl.trim())}`;
    case "data":
      // Image bytes are removed before a run's input is stored.
      return /^data:image\/[a-z.+-]+;base64,[a-z0-9+/=\s]+$/i.test(imageUrl.trim()) ? imageUrl.trim() : null;
    default:
      return null;
  }
}
