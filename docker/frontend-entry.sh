#!/bin/sh
# Fills in nginx.conf from the environment and becomes nginx.
#
#   BACKEND_URL                 the backend's address (http://backend:8000)
#   FRONTEND_PORT               the port nginx listens on (3000)
#   VISUAL_AI_MAX_IMAGE_BYTES   the backend's limits
#   VISUAL_AI_MAX_BODY_BYTES
set -eu

image=${VISUAL_AI_MAX_IMAGE_BYTES:-20971520}
body=${VISUAL_AI_MAX_BODY_BYTES:-5242880}
for number in "$image" "$body"; do
  case $number in
    '' | *[!0-9]*) echo "VISUAL_AI_MAX_IMAGE_BYTES, VISUAL_AI_MAX_BODY_BYTES: $number is no number" >&2; exit 1 ;;
  esac
done
# Twice the larger limit: the backend rejects requests that are too large itself, with its own message; nginx only stops
# endless ones.
limit=$((2 * (image > body ? image : body)))

resolvers=$(awk '$1 == "nameserver" { print ($2 ~ /:/ ? "[" $2 "]" : $2) }' /etc/resolv.conf | tr '\n' ' ')

sed -e "s|@BACKEND_URL@|${BACKEND_URL:-http://backend:8000}|g" \
    -e "s|@RESOLVER@|${resolvers:-127.0.0.11 }|g" \
    -e "s|@PORT@|${FRONTEND_PORT:-3000}|g" \
    -e "s|@ROOT@|${FRONTEND_ROOT:-/srv/frontend}|g" \
    -e "s|@MAX_BODY@|$limit|g" \
    "$(dirname "$0")/nginx.conf" > /tmp/nginx.conf
exec nginx -e stderr -c /tmp/nginx.conf -g 'daemon off;'
