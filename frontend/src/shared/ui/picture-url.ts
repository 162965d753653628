/**
 * The URL from which the browser loads the picture of a run's `image_url`; null if it can't be shown here.
 *
 * `http:` pictures are left to the backend: the page's policy allows pictures only over TLS.
 */
export function pictureUrl(imageUrl: unknown): string | null {
  if (typeof imageUrl !== "string") return null;
  const [, scheme, rest] = /^([a-z]+):(?:\/\/)?(.*)$/is.exec(imageUrl.trim()) ?? [];
  switch (scheme?.toLowerCase()) {
    case "upload":
      return `/images/${encodeURIComponent(rest ?? "")}`;
    case "sample":
      return `/images/samples/${encodeURIComponent(rest ?? "")}`;
    case "https":
      return imageUrl.trim();
    case "data":
      // Image bytes are removed before a run's input is stored.
      return /^data:image\/[a-z.+-]+;base64,[a-z0-9+/=\s]+$/i.test(imageUrl.trim()) ? imageUrl.trim() : null;
    default:
      return null;
  }
}
