# The gateway and nothing else: a static binary, the certificates of public
# authorities (for rediss:// and OTLP over TLS), no shell, no package manager.
#
#   docker build -t gateway .
#   docker build -t gateway-bench --target bench .     # the load tool

# By tag, so that a build has the newest patches of Go; nothing of it is in the image but
# what it has compiled, and the certificates. Which one it was is in the provenance of a
# release, by digest. To have it fixed: --build-arg GO_IMAGE=golang:1.26@sha256:…
ARG GO_IMAGE=golang:1.26
FROM --platform=$BUILDPLATFORM $GO_IMAGE AS build
WORKDIR /src
# Modules change seldom: their layer is built again only when they do.
COPY go.mod go.sum ./
RUN go mod download
COPY broker broker
COPY client client
COPY cmd cmd
COPY gateway gateway
COPY session session
ARG TARGETOS TARGETARCH
ARG VERSION=unknown COMMIT=unknown
ENV CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH
RUN --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" \
      -o /out/ ./cmd/gateway ./cmd/gateway-bench

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# No name is needed for it: 65532 is what "nonroot" is elsewhere.
USER 65532:65532

FROM base AS bench
COPY --from=build /out/gateway-bench /gateway-bench
ENTRYPOINT ["/gateway-bench"]

FROM base AS gateway
ARG VERSION=unknown COMMIT=unknown
LABEL org.opencontainers.image.title="wssgateway" \
      org.opencontainers.image.description="WebSocket gateway that scales out on Redis" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
COPY --from=build /out/gateway /gateway
# 8080: clients. 9090: metrics, health and the server API, on loopback unless
# GATEWAY_ADMIN_LISTEN says otherwise.
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s --retries=3 CMD ["/gateway", "healthcheck"]
ENTRYPOINT ["/gateway"]
CMD ["serve"]
