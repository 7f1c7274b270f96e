# The image that hack/image builds without Docker: docs/image.md. Arguments: VERSION, REVISION (git rev-parse HEAD), CREATED (RFC 3339).
FROM rust:1-alpine AS builder
RUN apk add --no-cache ca-certificates gcc musl-dev python3
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    hack/image --tree /image

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
COPY --from=builder /image/ /
ENV PATH=/
WORKDIR /
USER 65532:65532
ENTRYPOINT ["/vdbi"]
LABEL org.opencontainers.image.title="vdbi" \
      org.opencontainers.image.description="Dynamic database credentials for Kubernetes pods: webhook, renewer, revoker and node plugin" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/image.md"
