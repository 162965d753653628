/**
 * Where the browser gets the picture that a run was given as `image_url`; null when it can't be shown here.
 *
 * `http:` pictures are left to the backend: the page's policy allows pictures over TLS only.
 */
export function pictureAddress(imageUrl: unknown): string | null {
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
      // What is stored of a run has its picture's bytes cut out.
      return /^data:image\/[a-z.+-]+;base64,[a-z0-9+/=\s]+$/i.test(imageUrl.trim()) ? imageUrl.trim() : null;
    default:
      return null;
  }
}
